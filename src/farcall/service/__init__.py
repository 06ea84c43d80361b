"""The service: takes functions and tasks, stores them durably, feeds endpoints and hands results back.

`create_app` and `open_service` in `app` compose it; `tasks`, `functions`, `endpoints` and `accounts` each have
`rules` (decide), `store` (SQL) and `routes` (HTTP); `relay` stands between the store and the broker. Nothing here
ever executes or unpickles what a user sent.
"""
