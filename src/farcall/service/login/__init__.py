"""Browsers: who is logged in there, how they proved it, and the pages for that."""
