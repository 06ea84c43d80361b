"""What operators see and do over HTTP, beside the commands of `farcall-service`: accounts, programs, audit, health."""
