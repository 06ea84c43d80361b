"""From template, schema and a submitter's options to the text of a configuration.

Composes `options` (may they be?), `sandbox` (what does the template print?) and `placement` (where do values stand?).
Whether the result configures an endpoint is `endpoint.config`'s to say.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError, UndefinedError, meta

from farcall.endpoint.templates.options import (
    RESERVED_NAMES,
    OptionsRefused,
    SchemaUnusable,
    check_options,
    prepared,
)
from farcall.endpoint.templates.pieces import OUTPUT_LIMIT, OutputTooLong, Printed
from farcall.endpoint.templates.placement import Misplaced, place
from farcall.endpoint.templates.sandbox import LANGUAGE_NAMES, Sandbox
from farcall.wire.errors import FarcallError

__all__ = ["TIME_LIMIT_S", "TemplateRefused", "known_options", "render"]

TIME_LIMIT_S: Final = 10.0
"""How long a rendering may take."""

EX_DATAERR, EX_CONFIG = 65, 78


class TemplateRefused(FarcallError):
    """The options do not fit the schema, or the template makes no configuration of them.

    Attributes:
        step: `schema`: the submitter can change the options; `template`: mostly the site has to change the template.
        text: for the submitter; it names no path of the site.
        status: the exit status of the process that stops for it (sysexits): 65 or 78.
    """

    code = "TEMPLATE_REFUSED"

    def __init__(self, step: str, text: str, status: int = EX_CONFIG) -> None:
        super().__init__(step, text, status)
        self.step = step
        self.text = text
        self.status = status

    def __str__(self) -> str:
        return self.text


def render(
    template: str,
    *,
    options: Mapping[str, Any],
    schema: Any,
    template_dir: Path | None,
    parent_config: Mapping[str, Any],
    user_runtime: Mapping[str, Any],
    mapped_identity: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> str:
    """The text of a user endpoint's configuration: one YAML document, a mapping whose keys the template alone decides.

    It takes no longer than `TIME_LIMIT_S`, which the alarm clock (SIGALRM) sees to; only in the main thread.

    Args:
        template: of the administrator.
        options: of the submitter, `user_endpoint_config`; JSON values.
        schema: JSON Schema that they must fit; None: anything.
        template_dir: where what the template includes lies; None: it may include nothing. Read with this process's
            rights: call it as the user.
        parent_config: the manager's configuration, as in its `config.yaml`.
        user_runtime: what the submitter's SDK said of its Python. Quoted like the options.
        mapped_identity: `{"local": {uname, uid, gid, groups, gecos, shell, dir}, "globus": {"id"}}`.
        environment: variables of the user endpoint's process, as `_FARCALL.env`; None: there is no such member.

    Raises:
        TemplateRefused: see there.
    """
    try:
        with _time_limit(TIME_LIMIT_S):
            check_options(options, schema)
            variables = prepared(options)
            common: dict[str, Any] = {
                "parent_config": dict(parent_config),
                "user_runtime": prepared(user_runtime),
                "mapped_identity": dict(mapped_identity),
            }
            reserved = common if environment is None else {**common, "env": dict(environment)}
            printed = _printed(template, {**variables, **common, "_GC": reserved, "_FARCALL": reserved}, template_dir)
            return place(printed.pieces())
    except OptionsRefused as exc:
        raise TemplateRefused("schema", str(exc), EX_DATAERR) from exc
    except SchemaUnusable as exc:
        raise TemplateRefused("schema", f"This endpoint's schema for options is broken: {exc}. {_TELL}") from exc
    except Misplaced as exc:
        where = f" (line {exc.line} of it)" if exc.line is not None else ""
        raise TemplateRefused(
            "template",
            f"With these options, this endpoint's template makes no usable configuration: {exc}{where}. Check the "
            f"options; if they are right, tell its administrator.",
        ) from exc
    except _TooSlow as exc:
        text = f"This endpoint's template was not done within {TIME_LIMIT_S:g} seconds. {_TELL}"
        raise TemplateRefused("template", text) from exc


def known_options(template: str) -> tuple[str, ...]:
    """The options that a template names, in alphabetical order; those of what it includes are not among them.

    Raises:
        TemplateRefused: it is no Jinja template.
    """
    with _template_errors(template):
        names = meta.find_undeclared_variables(Sandbox(None).parse(template))
    return tuple(sorted(names.difference(RESERVED_NAMES, LANGUAGE_NAMES)))


_TELL: Final = "Tell its administrator."


def _printed(template: str, variables: Mapping[str, Any], template_dir: Path | None) -> Printed:
    with _template_errors(template):
        printed = Sandbox(template_dir).from_string(template).render(variables)
    if not isinstance(printed, Printed):  # nothing but a promise to the type checker
        raise TypeError("the sandbox joins pieces")
    return printed


@contextlib.contextmanager
def _template_errors(template: str) -> Iterator[None]:
    """What Jinja raises, as TemplateRefused."""
    begin = "This endpoint's template"
    try:
        yield
    except TemplateSyntaxError as exc:
        raise _refused(f"{begin} is broken (line {exc.lineno}: {exc.message}). {_TELL}") from exc
    except TemplateNotFound as exc:
        raise _refused(f"{begin} includes '{exc.name}', which the local user cannot read beside it. {_TELL}") from exc
    except UndefinedError as exc:
        raise _refused(_undefined(str(exc.message), template)) from exc
    except OutputTooLong as exc:
        raise _refused(f"{begin} makes more than {OUTPUT_LIMIT // 1024} KiB of it. {_TELL}") from exc
    except TemplateError as exc:  # SecurityError and others
        raise _refused(f"{begin} cannot be filled in: {exc.message}.") from exc
    except (_TooSlow, TemplateRefused):
        raise
    except RecursionError as exc:
        raise _refused(f"{begin} calls itself without end. {_TELL}") from exc
    except (MemoryError, OverflowError) as exc:
        raise _refused(f"{begin} makes something far too large. {_TELL}") from exc
    except Exception as exc:  # whatever an expression of the template can do wrong with the values it got
        raise _refused(f"{begin} cannot be filled in with these options: {exc}.") from exc


def _refused(text: str) -> TemplateRefused:
    return TemplateRefused("template", text)


def _undefined(said: str, template: str) -> str:
    found = re.fullmatch(r"'(\w+)' is undefined", said)
    if found is None:
        return f"This endpoint's template cannot be filled in with these options: {said}."
    known = ", ".join(known_options(template))
    return (
        f"This endpoint's template needs the option '{found[1]}', which user_endpoint_config does not have. "
        f"Options that it names: {known}."
    )


class _TooSlow(BaseException):
    """The alarm clock. Not an Exception: Jinja's filters catch those now and then."""


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
