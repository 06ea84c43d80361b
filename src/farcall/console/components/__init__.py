"""What pages are made of. Each shows what it is given as text."""
