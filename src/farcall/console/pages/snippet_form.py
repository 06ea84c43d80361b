"""A program for an endpoint, and a form for its `user_endpoint_config` that changes the program as it is filled in."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from nicegui import ui

from farcall.console.components import Tag, code_viewer
from farcall.console.page import View
from farcall.console.schema_form import FieldFault, FormField, fields_of, value_of
from farcall.console.snippet import snippet

__all__ = ["snippet_form"]


def snippet_form(view: View, endpoint_id: str, schema: Any) -> None:
    """Show both.

    Args:
        schema: the endpoint's `user_config_schema`, whatever it is; None: no form.
    """
    fields = fields_of(schema)
    typed: dict[str, Any] = {}
    if fields:
        Tag("h3", "Options of this endpoint")
        Tag("p", "What you leave empty is up to the endpoint.").classes("fc-unknown")
    elif schema is not None:
        Tag("p", "This endpoint's schema names no options.").classes("fc-unknown")

    def show() -> None:
        config: dict[str, Any] = {}
        for field in fields:
            with contextlib.suppress(FieldFault):  # the field says so itself
                value = value_of(field, typed.get(field.name))
                if value is not None:
                    config[field.name] = value
        program.set(snippet(view.session.base, endpoint_id, config))

    with Tag("div").classes("fc-form"):
        for field in fields:

            def changed(event: Any, field: FormField = field) -> None:
                typed[field.name] = event.value
                show()

            with Tag("div"):
                _input(field).on_value_change(changed)
                if field.description:
                    Tag("div", field.description).classes("fc-hint")
    program = code_viewer(snippet(view.session.base, endpoint_id), label="Python program")


def _input(field: FormField) -> ui.input | ui.select | ui.textarea:
    label = f"{field.name} (required)" if field.is_required else field.name
    if field.kind in ("boolean", "choice"):
        options = ("true", "false") if field.kind == "boolean" else field.choices
        plain = {each: json.loads(each) if each.startswith('"') else each for each in options}
        select = ui.select({each: str(text) for each, text in plain.items()}, label=label, clearable=True)
        return select.props("outlined dense")
    hint = "" if field.default is None else json.dumps(field.default, ensure_ascii=False)
    kind = ui.textarea if field.kind == "json" else ui.input
    shown: ui.input | ui.textarea = kind(label, validation=lambda text: _fault(field, text))
    shown.props("outlined dense debounce=200" + (" autogrow" if field.kind == "json" else ""))
    if hint:
        shown.props["placeholder"] = hint[:200]
    if field.kind in ("integer", "number"):
        shown.props["inputmode"] = "decimal"
    return shown


def _fault(field: FormField, text: Any) -> str | None:
    try:
        value_of(field, text)
    except FieldFault as exc:
        return str(exc)
    return None
