"""The chaos suite: tasks flow while parts of a system are killed, stopped and cut off; then everything is counted.

`python -m chaos` (with `tests` on the path; `make chaos`) runs it. `plan` says what breaks when, `verdict` what may
come of it, both pure; `setups` holds the systems that are broken, `storm` breaks them.
"""
