"""The two templates of the slides' multi-user chapter, word for word, and the schema of the second."""

from __future__ import annotations

WORKERS = """\
engine:
  type: GlobusComputeEngine
  max_workers_per_node: {{ WORKERS }}

provider:
  type: LocalProvider
"""
ACCOUNT = """\
engine:
  type: GlobusComputeEngine

provider:
  type: SlurmProvider
  partition: cpu
  account: {{ ACCOUNT_ID }}
  walltime: {{ WALLTIME|default("00:30:00") }}

launcher:
  type: SrunLauncher
"""
ACCOUNT_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "ACCOUNT_ID": {
            "type": "string",
            "enum": ["pi-chard", "pi-foster"],
            "description": "Account identifier, limited to specific project values",
        },
        "WALLTIME": {
            "type": "string",
            "pattern": "^0[0-1]:[0-5][0-9]:[0-5][0-9]$",
            "description": "Wall-clock time limit in format 'HH:MM:SS', limited to maximum 01:59:59",
        },
    },
    "additionalProperties": False,
}
