"""Who is asking: identities, bearer tokens, and logins at the broker."""
