"""RabbitMQ in place of the embedded broker: the relay uses `transport` and `copies`; `access` is the way there."""
