"""What was used: by whom, where, of which function, on which day."""
