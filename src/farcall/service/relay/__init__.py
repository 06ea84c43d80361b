"""Between the store and the broker: feeds tasks to endpoints and results to clients, and takes results in."""
