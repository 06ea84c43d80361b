"""The engine on Parsl's HighThroughputExecutor. Only this package imports Parsl, and only when it is used."""
