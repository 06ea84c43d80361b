"""What browsers are told about the console's pages: where scripts may come from, and that nobody frames them.

`script-src` keeps `'unsafe-eval'`: NiceGUI sends the handlers of events, and code for the browser, as text that its
script evaluates; there is no switch for it. Inline scripts run by a nonce alone, which `nonced` puts into NiceGUI's
own template and nowhere else, so a script that somebody smuggles into a page's text does not run. `style-src` keeps
`'unsafe-inline'`: Vue and Quasar place things by style attributes.

Source: W3C, Content Security Policy Level 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["NONCE", "nonced", "page_headers"]

NONCE: Final = "csp_nonce"
"""Name of the nonce in a request's scope."""

_SCRIPT: Final = re.compile(r"<script(?=[\s>])")


def page_headers(nonce: str) -> Mapping[str, str]:
    """For an answer whose inline scripts carry this nonce."""
    return {
        "content-security-policy": (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; object-src 'none'; "
            "frame-ancestors 'none'; form-action 'self'"
        ),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }


def nonced(template: str) -> str:
    """The source of a Jinja template whose script elements carry the nonce of the request that it is rendered for."""
    return _SCRIPT.sub(f'<script nonce="{{{{ request.scope["{NONCE}"] }}}}"', template)
