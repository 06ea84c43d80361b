"""Who did what: rows that are added in the transaction of what they record, and never changed."""
