"""The OAuth 2 server: codes, tokens, devices. The protocol is `oauthlib`'s; `server` connects it to the store."""
