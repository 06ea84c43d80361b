"""Logging in the way an institution does: OpenID Connect providers, and whom we take them to speak for."""
