"""What the names of the other ecosystem lead to. `globus_compute_sdk` beside this has its import names."""
