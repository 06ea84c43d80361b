"""The release whose interface this one has."""

__version__ = "4.19.0+farcall"
