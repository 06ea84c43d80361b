"""Text from elsewhere, made fit for a terminal or a log: it may say anything, but not move the cursor or end a line.

Names that people choose, and what their processes say, can hold escape sequences, and marks that turn the direction of
what follows. What is shown of those is what they are (`\\x1b`), as a Python literal would have it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["shown"]

_KINDS: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Of Unicode: controls, formats (direction, joining), halves of characters, separators of lines and paragraphs."""


def shown(text: str, *, keep: str = "") -> str:
    """The text with every character that is not to be seen written out; `keep` names those that stay ("\\n\\t")."""
    if text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in _KINDS and each not in keep else each
        for each in text
    )
