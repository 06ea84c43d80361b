"""What the operator of a service sees and limits: rate, queue length, measurements, readiness, logs."""
