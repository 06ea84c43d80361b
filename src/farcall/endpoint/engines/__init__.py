"""Engines: what runs the tasks of an endpoint.

`base` is the seam to the agent, `config` reads the `engine:` section of `config.yaml`.
"""
