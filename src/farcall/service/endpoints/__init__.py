"""Endpoints: registration, status, locking, deletion."""
