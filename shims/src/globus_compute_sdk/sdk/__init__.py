"""See `farcall.sdk` and `farcall.worker`."""
