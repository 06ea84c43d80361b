"""Groups of people, for sharing."""
