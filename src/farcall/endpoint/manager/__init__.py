"""The manager starts user endpoints as the local users that identities map to. It loads no Parsl, no payload code."""
