"""Measurements; nothing here is imported by the package or run by tests."""
