"""Filling a shell command with arguments, without tripping over the braces that shells, awk and JSON use.

The rules, in this order (docs/howto/shell-functions.md tells them to users):

1. A command that `str.format` accepts with the given arguments means what `str.format` makes of it. So whatever
   works with the other ecosystem's workers means the same here.
2. Otherwise the command is taken as shell text. In it `{name}`, also with a conversion, a format, an attribute or
   an index (`{name!r}`, `{name:>8}`, `{name.x}`, `{name[0]}`), is replaced if an argument has that name; a pair of
   doubled braces around anything (`{{…}}`) becomes a pair of single ones; every other brace stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["fill"]

_FIELD = re.compile(
    r"""
    \{\{ (?P<inside> (?: [^{}] | \{[^{}]*\} )* ) \}\}
    | (?P<dollar> \$? )
      \{ (?P<name> [^\W\d]\w* )
         (?P<rest> (?: \.[^\W\d]\w* | \[[^\[\]{}]+\] )* (?: ![rsa] )? (?: :[^{}]* )? )
      \}
    """,
    re.VERBOSE,
)


def fill(command: str, arguments: Mapping[str, Any], *, missing: str = "keep") -> str:
    """The command with its arguments.

    Args:
        arguments: by name.
        missing: what becomes of a plain `{name}` (not `${name}`) for which there is no argument: "keep" leaves it
            as it is, "error" raises.

    Raises:
        TypeError: a `{name}` has no argument and `missing` is "error"; or one has none while there are arguments
            that the command does not use, which is a misspelt name.
        ValueError: an argument cannot be formatted as its field asks.
    """
    try:
        return command.format(**arguments)
    except (LookupError, ValueError, TypeError, AttributeError):
        pass  # rule 2
    used: set[str] = set()
    unfilled: list[str] = []
    filled = _fill(command, arguments, used, unfilled)
    unused = sorted(arguments.keys() - used)
    if unfilled and (unused or missing == "error"):
        fields = ", ".join(dict.fromkeys(f"{{{name}}}" for name in unfilled))
        also = f", while the arguments {', '.join(unused)} are not used by it" if unused else ""
        raise TypeError(
            f"The command has {fields}, for which no argument was given{also}. Give the arguments by these names; "
            "braces that are meant literally can be doubled: {{ }}."
        )
    return filled


def _fill(command: str, arguments: Mapping[str, Any], used: set[str], unfilled: list[str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match["inside"] is not None:
            return "{" + _fill(match["inside"], arguments, used, unfilled) + "}"
        name, field = match["name"], match[0][len(match["dollar"]) :]
        if name not in arguments:
            if not match["dollar"] and not match["rest"]:
                unfilled.append(name)
            return match[0]
        used.add(name)
        try:
            return match["dollar"] + field.format(**{name: arguments[name]})
        except Exception as exc:  # any: __format__ and __getattr__ of the argument run
            raise ValueError(
                f"The argument {name} (of type {type(arguments[name]).__name__}) cannot be put into the command's "
                f"field {field}: {type(exc).__name__}: {exc}"
            ) from exc

    return _FIELD.sub(replacement, command)
