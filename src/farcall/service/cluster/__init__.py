"""Several service processes on one database: what they tell each other, and how relays divide the endpoints."""
