"""A manager that root runs, for tests with real local users."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farcall.testing.processes import ProcessSystem


class Manager:
    """A manager as root, run by the interpreter that its users can read, detached.

    Args:
        mapping: the name of a local user, by the id of an identity.
        config: further keys of its config.yaml.
        schema: of its users' options; None: anything goes.
        environment: further lines of user_environment.yaml.
    """

    def __init__(
        self,
        system: ProcessSystem,
        python: Path,
        name: str,
        template: str,
        mapping: Mapping[str, str],
        *,
        config: str = "",
        schema: Any = None,
        environment: str = "",
    ) -> None:
        self._system, self._python, self.name = system, python, name
        self.directory = system.root / "endpoints" / name
        self.command("configure", name, "--multi-user")
        (self.directory / "user_config_template.yaml.j2").write_text(template)
        schema_path = self.directory / "user_config_schema.json"
        schema_path.unlink() if schema is None else schema_path.write_text(json.dumps(schema))
        (self.directory / "mapping.json").write_text(json.dumps(_mapping(mapping)))
        (self.directory / "user_environment.yaml").write_text(f"FCT_SITE: of-the-site\nHOME: /root\n{environment}")
        (self.directory / "config.yaml").write_text(
            f"multi_user: true\nheartbeat_period: 5\nidentity_mapping_config_path: mapping.json\n{config}"
        )
        self.start()

    def command(self, *arguments: str) -> str:
        command = [
            str(self._python),
            "-m",
            "farcall.cli.endpoint",
            "--config-dir",
            str(self.directory.parent),
            *arguments,
        ]
        done = subprocess.run(
            command, env=self._system.commands.env, cwd="/", capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        self.command("start", self.name, "--detach")

    @property
    def id(self) -> str:
        return str(json.loads((self.directory / "endpoint.json").read_text())["endpoint_id"])

    @property
    def pid(self) -> int:
        return int((self.directory / "daemon.pid").read_text().split()[0])

    @property
    def log(self) -> str:
        return (self.directory / "endpoint.log").read_text()


def _mapping(become: Mapping[str, str]) -> list[dict[str, Any]]:
    rules = [
        {"source": "{id}", "match": identity_id, "output": name, "literal": True}
        for identity_id, name in become.items()
    ]
    return [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}]
