"""Functions: registered once, immutable, run by id."""
