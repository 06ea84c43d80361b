"""The agent of one endpoint: `core` decides, `runner` does. Engines run the tasks, the journal remembers them."""
