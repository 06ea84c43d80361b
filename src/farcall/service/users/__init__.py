"""People: their identities, and the passwords of those whom no other provider vouches for."""
