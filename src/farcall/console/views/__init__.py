"""What pages show, made of what the REST API says: pure functions from documents to words, rows and series.

No page, no request and no clock in here; `now` is an argument. Everything that comes out is plain text or numbers.
"""
