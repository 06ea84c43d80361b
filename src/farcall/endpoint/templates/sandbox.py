"""Jinja as templates of configurations may use it: sandboxed, without surprises, and aware of what is a value.

Every expression's result becomes a piece of its own (`pieces`), so that `placement` can tell the author's text from
values. What the author wrote as a constant counts as text; a macro or block brings the pieces that it printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from jinja2 import BaseLoader, StrictUndefined, TemplateAssertionError, TemplateNotFound, nodes, pass_context
from jinja2.environment import Environment, TemplateModule
from jinja2.exceptions import SecurityError
from jinja2.filters import do_format, do_indent, do_trim, make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from farcall.endpoint.templates.pieces import OUTPUT_LIMIT, Kind, Printed, Value, join, printed
from farcall.endpoint.templates.quoting import Quoted

__all__ = ["LANGUAGE_NAMES", "DirectoryLoader", "Sandbox", "shell_escape"]

LANGUAGE_NAMES: Final = ("dict", "namespace", "range")
"""Functions that every template has."""
_WIDENING: Final = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_FILE_LIMIT: Final = 1024 * 1024


class DirectoryLoader(BaseLoader):
    """Reads what a template includes, extends or imports: files below one directory, with this process's rights.

    Args:
        directory: None: there is nothing to include.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        del environment
        parts = template.split("/")
        if self._directory is None or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise TemplateNotFound(template)
        base = os.path.realpath(self._directory)
        path = os.path.realpath(os.path.join(base, *parts))
        if os.path.commonpath([base, path]) != base:
            raise TemplateNotFound(template)
        try:
            return _read(path), None, None
        except (OSError, UnicodeDecodeError) as exc:
            raise TemplateNotFound(template) from exc


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _FILE_LIMIT:
            raise OSError("not a file, or a very large one")
        return file.read(_FILE_LIMIT).decode()


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one rendering.

    Args:
        directory: where includes lie; None: nowhere.
    """

    intercepted_binops = frozenset({"*", "**"})
    concat = staticmethod(join)

    def __init__(self, directory: Path | None) -> None:
        self._constants: set[str] = set()
        super().__init__(
            loader=DirectoryLoader(directory),
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=True,
            finalize=_finalized,
            cache_size=32,
            auto_reload=False,
        )
        self.globals = {name: self.globals[name] for name in LANGUAGE_NAMES}
        self.filters.update(
            shell_escape=shell_escape, indent=_indented, trim=_trimmed, tojson=_tojson, join=_joined, format=_formatted
        )
        for name in ("center", "escape", "e", "forceescape", "safe", "urlize", "xmlattr", "pprint", "random"):
            del self.filters[name]

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        for forbidden in parsed.find_all((nodes.ScopedEvalContextModifier, nodes.EvalContextModifier)):
            raise TemplateAssertionError("autoescape is for web pages", forbidden.lineno, name, filename)
        self._constants.update(each.value for each in parsed.find_all(nodes.Const) if isinstance(each.value, str))
        return parsed

    def is_constant(self, text: str) -> bool:
        """Whether the text stands in a template as a constant: then it is its author's, whoever chose it."""
        return text in self._constants

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not (isinstance(obj, str) and attr in _WIDENING) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiplication and power only as far as the result stays small."""
        for one, other in ((left, right), (right, left)):
            is_repeated = operator == "*" and isinstance(one, (str, list, tuple)) and isinstance(other, int)
            if is_repeated and len(one) * other > OUTPUT_LIMIT:
                raise SecurityError("a text or list becomes too long")
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > 4096:
                raise SecurityError("a number becomes too large")
        return super().call_binop(context, operator, left, right)


@pass_context
def _finalized(context: Context, value: Any) -> Any:
    if type(value) is str and isinstance(context.environment, Sandbox) and context.environment.is_constant(value):
        return value
    if isinstance(value, (Undefined, TemplateModule)):
        return str(value)  # the first raises, the second is what the module printed
    return printed(value)


def shell_escape(value: Any) -> Value:
    """One word of a shell command, whatever it contains. Raises SecurityError for what no place in a text can hold."""
    if isinstance(value, Undefined):
        str(value)  # raises
    raw = value._raw if isinstance(value, Quoted) else value
    if isinstance(raw, bool) or raw is None or isinstance(raw, (int, float)):
        text = printed(raw)
    elif isinstance(raw, str):
        text = raw
    else:
        text = json.dumps(_unquoted(raw), ensure_ascii=False)
    if any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or each in "\u2028\u2029\ufeff" for each in text):
        raise SecurityError(
            f"a word of a shell command cannot contain line breaks or control characters: {json.dumps(text[:60])}"
        )
    word = shlex.quote(text)
    return Value(word, Kind.SHELL, word)


def _unquoted(value: Any) -> Any:
    if isinstance(value, Quoted):
        return value._raw
    if isinstance(value, dict):
        return {key: _unquoted(each) for key, each in value.items()}
    return [_unquoted(each) for each in value] if isinstance(value, (list, tuple)) else value


@pass_context
def _joined(context: Context, value: Any, d: str = "", attribute: str | int | None = None) -> Printed:
    """As Jinja's, and what was a value before remains one: `[{{ NAMES|join(", ") }}]`."""
    pieces: list[str] = []
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    for index, each in enumerate(value):
        if index and d:
            pieces.append(_finalized(context, d))
        pieces.append(_finalized(context, each))
    return join(pieces)


def _formatted(value: str, *args: Any, **kwargs: Any) -> str:
    if re.search(r"%[^%a-zA-Z]*([0-9]{4}|\*)", value):
        raise SecurityError("a number or text is formatted to 999 places at most")
    return do_format(value, *args, **kwargs)


def _tojson(value: Any, indent: int | None = None) -> str:
    """What printing makes of it anyway."""
    del indent
    return printed(Quoted(value) if type(value) is str else value)


def _indented(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if len(width) > 80 if isinstance(width, str) else width > 80:
        raise SecurityError("text is indented by 80 characters at most")
    if not isinstance(value, Printed):
        return do_indent(value, width, first, blank)
    pad = width if isinstance(width, str) else " " * width
    lines = _Lines(pad, first=first, blank=blank)
    return Printed(lines.piece(each) for each in value.pieces())


class _Lines:
    """Indents pieces: what follows a line break is the beginning of a line."""

    def __init__(self, pad: str, *, first: bool, blank: bool) -> None:
        self._pad = pad
        self._is_blank_too = blank
        self._is_due = first

    def piece(self, piece: str) -> str:
        if isinstance(piece, Value):
            made = self._pad if self._is_due else ""
            self._is_due = False
            return Printed([made, piece]) if made else piece
        written = []
        for line in piece.splitlines(keepends=True):
            if self._is_due and (line.strip("\r\n") or self._is_blank_too):
                written.append(self._pad)
            written.append(line)
            self._is_due = line.endswith("\n")
        return "".join(written)


def _trimmed(value: Any, chars: str | None = None) -> str:
    if not isinstance(value, Printed):
        return do_trim(value, chars)
    pieces = list(value.pieces())
    while pieces and not isinstance(pieces[0], Value) and not pieces[0].strip(chars):
        del pieces[0]
    while pieces and not isinstance(pieces[-1], Value) and not pieces[-1].strip(chars):
        del pieces[-1]
    if pieces and not isinstance(pieces[0], Value):
        pieces[0] = pieces[0].lstrip(chars)
    if pieces and not isinstance(pieces[-1], Value):
        pieces[-1] = pieces[-1].rstrip(chars)
    return Printed(pieces)
