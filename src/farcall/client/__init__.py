"""REST client of a Farcall service, its retry policy, and the store of the user's tokens.

Modules are imported directly (`farcall.client.rest`), so that asking for a directory does not load httpx.
"""
