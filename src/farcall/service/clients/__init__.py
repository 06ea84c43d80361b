"""Programs that log in: those with a secret of their own, and those that people log in through."""
