"""Puts values into a YAML text so that none leaves its place. Pure.

The text is first read with an opaque word in place of every value: that settles which keys, lists and scalars there
are, before a character of any value counts. Then each scalar that contains such a word is written with its value, in a
form that means exactly that; and the whole is read once more and compared.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from farcall.endpoint.templates.pieces import Kind, Value
from farcall.endpoint.templates.quoting import literal

__all__ = ["Misplaced", "place"]


class Misplaced(ValueError):
    """The text is no YAML mapping, or a value stands where it cannot. `line` counts from 1; None: unknown."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class _Change:
    begin: int
    end: int
    text: str


def place(pieces: Sequence[str]) -> str:
    """The YAML text that the pieces make: a mapping whose structure is the author's alone.

    A submitter's string that is a whole scalar becomes that string. Inside a longer plain or block scalar it stands as
    its JSON literal, inside a quoted scalar as itself; other values always stand as themselves.

    Raises:
        Misplaced: see there.
    """
    values: dict[str, Value] = {}
    nonce = secrets.token_hex(8)
    parts = []
    for piece in pieces:
        if isinstance(piece, Value):
            word = f"Zv{nonce}n{len(values)}z"
            values[word] = piece
            parts.append(word)
        else:
            parts.append(piece)
    skeleton = "".join(parts)
    root = _composed(skeleton)
    return _Placement(skeleton, root, values, re.compile(f"Zv{nonce}n[0-9]+z")).text()


class _Placement:
    def __init__(self, skeleton: str, root: yaml.Node, values: dict[str, Value], word: re.Pattern[str]) -> None:
        self._skeleton = skeleton
        self._root = root
        self._values = values
        self._word = word
        self._meant: dict[int, str] = {}  # what each scalar shall say, by the node's id
        # A node begins at its anchor or tag, the scalar itself behind that; they end together.
        self._begins = {
            token.end_mark.index: token.start_mark.index
            for token in yaml.scan(skeleton)
            if isinstance(token, yaml.ScalarToken)
        }

    def text(self) -> str:
        changes = [change for node in _scalars(self._root, set()) if (change := self._scalar(node)) is not None]
        begin, written = 0, []
        for change in sorted(changes, key=lambda each: each.begin):
            written += [self._between(begin, change.begin), change.text]
            begin = change.end
        written.append(self._between(begin, len(self._skeleton)))
        text = "".join(written)
        self._compare(_composed(text), self._root, set())
        return text

    def _scalar(self, node: yaml.ScalarNode) -> _Change | None:
        words = self._word.findall(node.value)
        if not words:
            return None
        whole = self._values[words[0]] if node.value == words[0] else None
        end = node.end_mark.index
        begin = self._begins[end]
        if node.style in ("|", ">"):
            self._meant[id(node)] = self._with(node.value, is_raw=False)
            return _Change(begin, end, self._block(self._skeleton[begin:end], node))
        if node.style is not None:
            self._meant[id(node)] = self._with(node.value, is_raw=True)
        elif whole is not None and whole.kind is Kind.QUOTED:
            self._meant[id(node)] = whole.raw
            return _Change(begin, end, str(whole))
        elif whole is not None and whole.kind is Kind.TEXT and (scalar := _as_scalar(whole)) is not None:
            self._meant[id(node)] = scalar
            return _Change(begin, end, str(whole))
        else:
            self._meant[id(node)] = self._with(node.value, is_raw=False)
        meant = self._meant[id(node)]
        is_plain = node.style is None and _PLAIN.fullmatch(meant) is not None
        return _Change(begin, end, meant if is_plain else literal(meant))

    def _with(self, text: str, *, is_raw: bool) -> str:
        return self._word.sub(lambda found: _said(self._values[found[0]], is_raw=is_raw), text)

    def _block(self, source: str, node: yaml.ScalarNode) -> str:
        for word in self._word.findall(source):
            if _UNPRINTABLE.search(self._values[word]):
                raise Misplaced(
                    "a value with a line break or a control character stands in the middle of a text, "
                    "where it could end it",
                    node.start_mark.line + 1,
                )
        return self._with(source, is_raw=False)

    def _between(self, begin: int, end: int) -> str:
        """What lies between scalars that have values: a value can only stand in a comment there."""
        source = self._skeleton[begin:end]
        for found in self._word.finditer(source):
            start = begin + found.start()
            line_begin = self._skeleton.rfind("\n", 0, start) + 1
            if re.search(r"(^|\s)#", self._skeleton[line_begin:start]) is None:
                line = self._skeleton.count("\n", 0, start) + 1
                raise Misplaced("a value stands where YAML has neither a key nor a value nor a comment", line)
        return self._word.sub(lambda found: _remark(self._values[found[0]]), source)

    def _compare(self, is_: yaml.Node, meant: yaml.Node, seen: set[int]) -> None:
        """Raises Misplaced unless the text says what it shall, everywhere: if this module errs, nobody is harmed."""
        if id(meant) in seen:
            return
        seen.add(id(meant))
        if isinstance(meant, yaml.ScalarNode):
            said = self._meant.get(id(meant), meant.value)
            if isinstance(is_, yaml.ScalarNode) and is_.value == said:
                return
        elif type(is_) is type(meant) and len(is_.value) == len(meant.value):
            for one, other in zip(_children(is_), _children(meant), strict=True):
                self._compare(one, other, seen)
            return
        raise Misplaced("a value would change what stands around it", meant.start_mark.line + 1)


# Plain scalars that mean themselves in block and flow context alike; anything else is quoted.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_/$](?:[A-Za-z0-9_./@%+=~$\"'();&|<>* -]*[A-Za-z0-9_./@%+=~$\"');])?")
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def _as_scalar(text: str) -> str | None:
    """What a text means that is one quoted scalar: a submitter's string in other letters. None: it is none."""
    if "\n" in text or text[:1] not in ('"', "'"):
        return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    if not isinstance(node, yaml.ScalarNode) or node.end_mark.index != len(text):
        return None
    return str(node.value)


def _said(value: Value, *, is_raw: bool) -> str:
    return value.raw if is_raw else str.__str__(value)


def _remark(value: Value) -> str:
    return literal(value) if _UNPRINTABLE.search(value) else value


def _composed(text: str) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        # Constructed too: the wrong kind of key or a date that does not exist are found only then.
        if root is not None:
            yaml.safe_load(text)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        said = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise Misplaced(f"what it makes is not YAML ({said})", mark.line + 1 if mark is not None else None) from exc
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as exc:
        raise Misplaced(f"what it makes is not YAML ({type(exc).__name__})") from exc
    if not isinstance(root, yaml.MappingNode):
        raise Misplaced("what it makes has no keys (`engine:` and so on)")
    return root


def _scalars(node: yaml.Node, seen: set[int]) -> Iterator[yaml.ScalarNode]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    for each in _children(node):
        yield from _scalars(each, seen)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
