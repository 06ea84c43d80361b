"""A Python program that runs a function at an endpoint, ready to be copied. Decides only."""

from __future__ import annotations

import pprint
import textwrap
from collections.abc import Mapping
from typing import Any

__all__ = ["snippet"]


def snippet(service_url: str, endpoint_id: str, config: Mapping[str, Any] | None = None) -> str:
    """The program.

    Args:
        service_url: by which the viewer reached the service.
        config: the `user_endpoint_config`; None or empty: the endpoint takes none, or its defaults do.
    """
    lines = [
        "# pip install farcall",
        f"# farcall login {service_url}",
        "from farcall import Executor",
        "",
        "",
        "def double(number):",
        "    return 2 * number",
        "",
        "",
    ]
    arguments = [f"endpoint_id={endpoint_id!r}"]
    if config:
        shown = pprint.pformat(dict(config), sort_dicts=False, width=80)
        lines += [f"config = {textwrap.indent(shown, '         ').lstrip()}", ""]
        arguments.append("user_endpoint_config=config")
    lines += [
        f"with Executor({', '.join(arguments)}) as executor:",
        "    future = executor.submit(double, 21)",
        "    print(future.result())",
    ]
    return "\n".join(lines) + "\n"
