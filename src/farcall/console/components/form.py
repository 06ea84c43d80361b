"""Forms: a filter, whose fields are the parameters of an address, and one that is sent to the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui.element import Element

__all__ = ["Field", "Form"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field.

    Attributes:
        kind: `text`; `number`, typed as text; `lines`, a text of several; `choice` of `options`; `yes`, a check box;
            `moment`, shown in the viewer's zone and told in UTC, as `views.times.to_address` writes it.
        value: text, or a bool for `yes`.
        options: value and text of each choice.
        help: said below the field, and to who hears rather than sees it.
        beside: it stands beside the field before it.
    """

    name: str
    label: str
    kind: Literal["text", "number", "lines", "choice", "yes", "moment"] = "text"
    value: str | bool = ""
    options: Sequence[tuple[str, str]] = ()
    help: str = ""
    required: bool = False
    beside: bool = False


class Form(Element, component="form.js"):
    """A form.

    Args:
        label: what it is for.
        send: text of the button.
        address: of the page that shows what was asked for; None: the values go to `on_send`.
        cancel: the address that leads away, or to everything.
        keep: parameters of the address that no field shows.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        label: str,
        send: str,
        address: str | None = None,
        cancel: str | None = None,
        keep: Mapping[str, str] | None = None,
        on_send: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self._props["fields"] = [_document(each) for each in fields]
        self._props["errors"] = {}
        self._props["label"] = label
        self._props["send"] = send
        self._props["address"] = address
        self._props["cancel"] = cancel
        self._props["keep"] = dict(keep or {})
        self._names = {each.name for each in fields}
        if on_send is not None:
            self.on("send", lambda event: on_send({name: event.args.get(name) for name in self._names}))

    def tell(self, errors: Mapping[str, str], fault: str | None = None) -> None:
        """Say what is wrong: beside the fields that `errors` names, and above all of them."""
        self._props["errors"] = dict(errors)
        self._props["fault"] = fault
        self.update()


def _document(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "label": field.label,
        "kind": field.kind,
        "value": field.value,
        "options": [{"value": value, "text": text} for value, text in field.options],
        "help": field.help,
        "required": field.required,
        "beside": field.beside,
    }
