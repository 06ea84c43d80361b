"""The second factor of local accounts: six digits from an app that shares a secret with us (TOTP), and recovery codes.

Decides only; the clock is passed in. A code counts once: the step it belongs to is remembered by the caller, and no
step up to that one is taken again.

Source: RFC 6238 (algorithm; section 5.2 on reuse and clock drift), RFC 4226 section 7.3 (throttling: `throttle`).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Final

import pyotp
import segno

__all__ = [
    "RECOVERY_CODES",
    "STEP_S",
    "matching_step",
    "new_recovery_codes",
    "new_totp_secret",
    "provisioning_uri",
    "qr_svg",
    "recovery_code_hash",
]

STEP_S: Final = 30
_DRIFT_STEPS: Final = 1
"""A phone's clock may be so many steps off, either way."""
RECOVERY_CODES: Final = 10
_RECOVERY_BYTES: Final = 10


def new_totp_secret() -> str:
    """160 random bits, base32."""
    return pyotp.random_base32(32)


def provisioning_uri(secret: str, username: str, service: str) -> str:
    """What the app reads from the QR code.

    Args:
        service: shown by the app above the code; the host that the user knows.
    """
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=service.replace(":", " "))


def qr_svg(uri: str) -> str:
    """An `<svg>` element to be put into a page; no styles or scripts inside."""
    return segno.make(uri, error="m").svg_inline(scale=5, border=4, dark="#000", light="#fff", omitsize=False)


def matching_step(secret: str, code: str, *, now: float, last_step: int | None) -> int | None:
    """The step whose code this is, for the caller to remember as the next `last_step`; None: refused.

    Args:
        now: Unix seconds.
        last_step: the step that was last accepted; it and all before are refused.
    """
    digits = "".join(code.split())
    if len(digits) != 6 or not digits.isascii() or not digits.isdigit():
        return None
    current = int(now // STEP_S)
    totp = pyotp.TOTP(secret)
    steps = range(current - _DRIFT_STEPS, current + _DRIFT_STEPS + 1)
    # All are compared, each in constant time.
    found = [step for step in steps if secrets.compare_digest(totp.generate_otp(step), digits)]
    return next((step for step in found if last_step is None or step > last_step), None)


def new_recovery_codes() -> tuple[str, ...]:
    """Ten codes of 80 random bits, to be shown once; each replaces the app once."""
    return tuple(_grouped(secrets.token_bytes(_RECOVERY_BYTES)) for _ in range(RECOVERY_CODES))


def recovery_code_hash(code: str) -> str:
    """What is stored of a recovery code, however it was typed. Random, so a plain hash will do."""
    letters = "".join(char for char in code.upper() if char.isalnum())
    return hashlib.sha256(letters.encode()).hexdigest()


def _grouped(raw: bytes) -> str:
    letters = base64.b32encode(raw).decode().lower()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))
