"""Managers: endpoints that run no tasks themselves, but start user endpoints that do."""
