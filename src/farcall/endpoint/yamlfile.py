"""A YAML file as plain values, with the line on which each key stands. Pure.

Finds what YAML itself lets pass or explains badly: a key given twice, and `{{ … }}` left over from a template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["LocatedYaml", "Problem", "YamlFault", "dotted", "parse_yaml"]

Path = tuple[Any, ...]  # keys and list indices, outermost first


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong. `line` counts from 1; None: the file as a whole."""

    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.key + ': ' if self.key else ''}{self.text}"


class YamlFault(ValueError):
    """The text cannot be read; `problems` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocatedYaml:
    """Values, and where their keys stand."""

    value: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of the key at `path`, or of the nearest key around it; None for an empty path."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def parse_yaml(text: str, *, is_rendered: bool = False) -> LocatedYaml:
    """Read one YAML document. An empty one has the value None.

    Args:
        is_rendered: it was made of a template: what looks like a placeholder is a user's text.

    Raises:
        YamlFault: a syntax error, a key given twice, or a placeholder of a template that nobody filled in.
    """
    try:
        return _located(text, is_rendered=is_rendered)
    except YamlFault:
        raise
    except (ValueError, RecursionError) as exc:  # a date that is none; brackets without end
        raise YamlFault([Problem(line=None, key="", text=f"this is not YAML: {exc}")]) from exc


def _located(text: str, *, is_rendered: bool) -> LocatedYaml:
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        raise YamlFault([_syntax_problem(exc, text)]) from exc
    except yaml.YAMLError as exc:
        raise YamlFault([Problem(line=None, key="", text=f"this is not YAML: {exc}")]) from exc
    if node is None:
        return LocatedYaml(value=None, lines={})
    walk = _Walk(is_rendered=is_rendered)
    walk.visit(node, ())
    if walk.problems:
        raise YamlFault(walk.problems)
    return LocatedYaml(value=yaml.safe_load(text), lines=walk.lines)


class _Walk:
    def __init__(self, *, is_rendered: bool) -> None:
        self._is_rendered = is_rendered
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._seen: set[int] = set()

    def visit(self, node: yaml.Node, path: Path) -> None:
        if id(node) in self._seen:
            return  # an alias of something above
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                inner = (*path, index)
                self.lines[inner] = item.start_mark.line + 1
                self.visit(item, inner)
        elif isinstance(node, yaml.ScalarNode) and not self._is_rendered:
            found = _PLACEHOLDER.search(node.value)
            if found is not None:
                self._placeholder(node, path, found[0])

    def _mapping(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[Any, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                # `account: {{ ACCOUNT }}` is, to YAML, a mapping whose key is a mapping.
                source = _line_of(key_node)
                found = _PLACEHOLDER.search(source)
                self._placeholder(key_node, path, found[0] if found else "{{ … }}")
                continue
            key = key_node.value
            inner = (*path, key)
            if key in first:
                text = f"is given twice (also on line {first[key]}); remove one"
                self.problems.append(Problem(line=line, key=dotted(inner), text=text))
            first.setdefault(key, line)
            self.lines[inner] = line
            self.visit(value_node, inner)

    def _placeholder(self, node: yaml.Node, path: Path, found: str) -> None:
        self.problems.append(
            Problem(line=node.start_mark.line + 1, key=dotted(path), text=_placeholder_text(found, path))
        )


_PLACEHOLDER = re.compile(r"\{\{\s*[A-Za-z_][^{}]*\}\}|\{%[^%]*%\}")
"""A Jinja placeholder. Go templates in commands (`docker ps --format {{.Names}}`) begin with a dot: not meant."""


def _placeholder_text(found: str, path: Path) -> str:
    name = f"'{path[-1]}'" if path else "this key"
    return (
        f"{found} is a template's placeholder that nobody has filled in; write the value for {name}, or remove the line"
    )


def _syntax_problem(exc: yaml.MarkedYAMLError, text: str) -> Problem:
    mark = exc.problem_mark or exc.context_mark
    line = mark.line + 1 if mark is not None else None
    source = text.splitlines()[mark.line] if mark is not None and mark.line < len(text.splitlines()) else ""
    found = _PLACEHOLDER.search(source)
    if found is not None:
        return Problem(line=line, key=source.partition(":")[0].strip(), text=_placeholder_text(found[0], ()))
    if "\t" in source[: len(source) - len(source.lstrip())]:
        return Problem(line=line, key="", text="YAML is indented with blanks; this line begins with a tab")
    said = ", ".join(part for part in (exc.context, exc.problem) if part)
    return Problem(line=line, key="", text=f"this is not YAML: {said}" + (f" in `{source.strip()}`" if source else ""))


def _line_of(node: yaml.Node) -> str:
    buffer = node.start_mark.buffer
    if buffer is None:
        return ""
    begin = buffer.rfind("\n", 0, node.start_mark.pointer) + 1
    end = buffer.find("\n", node.start_mark.pointer)
    return str(buffer[begin : end if end >= 0 else None])


def dotted(path: Path) -> str:
    """A path as people write it: `allowed_functions[0]`, `engine.provider.type`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
