"""What a manager tells submitters whose user endpoint cannot be started. They end up in the future's exception."""

from __future__ import annotations

import signal

from farcall.endpoint.manager.commands import StopUserEndpoint

__all__ = [
    "launch_failed",
    "no_blueprint",
    "skewed",
    "stopped",
    "too_many",
    "too_many_of_one",
    "unexpected",
    "untrusted",
    "ended",
]


def skewed(skew_s: float, limit_s: float) -> str:
    """The command's time and ours are too far apart."""
    how = "ago" if skew_s > 0 else "in the future"
    return (
        f"The request to start the user endpoint was sent {abs(skew_s):.0f} s {how} by the clock of the endpoint's "
        f"machine, and the limit is {limit_s:.0f} s: the clocks of the service and that machine differ. Ask the "
        "endpoint's administrator to set the clock (NTP), then submit again."
    )


def untrusted(username: str) -> str:
    """A manager without privilege serves nobody but its owner."""
    return (
        f"The endpoint's manager does not run as root, so it runs functions for its owner's identities only, and "
        f"{username} is none of them (untrusted identity). Ask its owner."
    )


def too_many(limit: int) -> str:
    return (
        f"The endpoint runs as many user endpoints as it may at once (`max_user_endpoints: {limit}`). Submit again "
        "when some have ended, or ask its administrator."
    )


def too_many_of_one(limit: int) -> str:
    return (
        "As many user endpoints of yours run at this endpoint as may at once (`max_user_endpoints_per_user: "
        f"{limit}`). Each different `user_endpoint_config` needs one: submit with one that runs already, or again when "
        "one has ended for idleness."
    )


def stopped(user_endpoint_id: str, wish: StopUserEndpoint) -> str:
    """Somebody has stopped it: at the service (the reason then begins with who), or on the endpoint's machine."""
    reason = wish.reason.rstrip(".")
    who = "" if wish.username else " by the administrator of the endpoint"
    return (
        f"The user endpoint {user_endpoint_id} was stopped{who}{f': {reason}' if reason else ''}. What waited for it, "
        "or ran there, has failed; submitting again starts it again."
    )


def ended(user_endpoint_id: str, status: int, *, has_been_online: bool) -> str:
    """It ended without a word."""
    how = f"with exit status {status}" if status >= 0 else f"by signal {_signal_name(-status)}"
    when = "" if has_been_online else " before it was ready"
    return (
        f"The user endpoint {user_endpoint_id} ended {how}{when}. Its log, and its manager's, say more: ask the "
        "endpoint's administrator."
    )


def launch_failed(user_endpoint_id: str) -> str:
    return (
        f"No process could be started for the user endpoint {user_endpoint_id}. The log of the endpoint's manager says "
        "why: ask the endpoint's administrator, and submit again later."
    )


def no_blueprint(user_endpoint_id: str) -> str:
    return (
        f"The files that the user endpoint {user_endpoint_id} would be made of cannot be read at the endpoint. The log "
        "of its manager says why: ask the endpoint's administrator."
    )


def unexpected(user_endpoint_id: str) -> str:
    """Source: wire protocol, failure notice, the text for everything else."""
    return (
        f"General or unknown failure starting user endpoint {user_endpoint_id}. The log of the endpoint's manager says "
        "more: ask the endpoint's administrator."
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
