"""The commands of the other ecosystem: `globus-compute-endpoint` and `gce` are `farcall-endpoint`."""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from farcall_globus_shim.conflict import refuse_beside_the_real

__all__ = ["diagnostic", "endpoint"]

_TIMEOUT_S = 60


def endpoint() -> None:
    """`globus-compute-endpoint`, `gce`."""
    _refuse()
    from farcall.cli.endpoint import main

    main(prog_name=Path(sys.argv[0]).name)


def diagnostic() -> None:
    """`globus-compute-diagnostic`: what somebody who helps would ask for first, in one file."""
    _refuse()
    parser = argparse.ArgumentParser(prog="globus-compute-diagnostic", description=diagnostic.__doc__)
    parser.add_argument("-p", "--print-only", action="store_true", help="print, and write no file")
    parser.add_argument("-c", "--config-dir", help="directory of the endpoints' directories")
    asked = parser.parse_args()
    at = [] if asked.config_dir is None else ["--config-dir", asked.config_dir]
    parts = [f"{platform.platform()}\nPython {sys.version}\n{sys.executable}\n"]
    for words in (
        ["farcall-endpoint", "--debug", "version"],
        ["farcall-endpoint", "whoami"],
        ["farcall-endpoint", "list"],
    ):
        parts.append(_output([words[0], *at, *words[1:]]))
    text = "\n".join(parts)
    if asked.print_only:
        print(text)  # noqa: T201  # a command's output
        return
    name = f"globus_compute_diagnostic_{datetime.now(timezone.utc):%Y-%m-%d-%H-%M-%SZ}.txt.gz"
    with gzip.open(name, "wt", encoding="utf-8") as file:
        file.write(text)
    print(f"Written to {name}. It holds no tokens; look at it before you send it to somebody.")  # noqa: T201


def _output(command: list[str]) -> str:
    command[0] = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1"},
    )
    return f"$ {' '.join(command)}\n{done.stdout}{done.stderr}(status {done.returncode})\n"


def _refuse() -> None:
    try:
        refuse_beside_the_real()
    except ImportError as exc:
        sys.exit(str(exc))
