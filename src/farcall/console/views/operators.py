"""What operators see, as rows and words: people, programs, groups, and how the service goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from farcall.console.formats import count, duration, percent, share, size
from farcall.console.views.values import mapping, mappings, number, text

__all__ = ["amounts", "client_row", "group_row", "health_facts", "state_of_user", "user_row"]


def user_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/admin/users`."""
    return {
        "id": document.get("id"),
        "username": document.get("username"),
        "name": document.get("display_name"),
        "email": document.get("email"),
        "kind": "program" if document.get("kind") == "client" else "person",
        "provider": document.get("provider") or "this service",
        "state": state_of_user(document),
        "operator": "Yes" if document.get("is_admin") else "No",
        "second_factor": "Yes" if document.get("has_totp") else "No",
        "last_login": number(document.get("last_login_at")),
        "created": number(document.get("created_at")),
    }


def state_of_user(document: Mapping[str, Any]) -> str:
    """`enabled` or `disabled`."""
    return "enabled" if document.get("disabled_at") is None else "disabled"


def client_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/admin/clients`."""
    return {
        "client_id": document.get("client_id"),
        "name": document.get("name"),
        "state": "enabled" if document.get("revoked_at") is None else "revoked",
        "secret": "Yes" if document.get("is_confidential") else "No",
        "redirects": ", ".join(str(each) for each in document.get("redirect_uris") or ()),
        "owner": document.get("owner_id") or "the service's operators",
        "created": number(document.get("created_at")),
    }


def group_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `GET /v3/admin/groups`."""
    members = mappings(document.get("members"))
    names = [f"{each.get('username')}{' (manager)' if each.get('role') == 'manager' else ''}" for each in members]
    return {
        "id": document.get("id"),
        "name": document.get("name"),
        "description": document.get("description"),
        "count": len(members),
        "members": ", ".join(names),
        "created": number(document.get("created_at")),
    }


def amounts(told: Any) -> str | None:  # a member of a JSON document: an object of numbers
    """`direct: 3, manager: 1`; None if there are none."""
    parts = [f"{name}: {count(number(value))}" for name, value in mapping(told).items() if number(value)]
    return ", ".join(parts) or None


def health_facts(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str | None]]]:
    """What `GET /v3/admin/health` says, by part: names and values; None is not known."""
    store, broker = mapping(document.get("store")), mapping(document.get("broker"))
    process, disk = mapping(document.get("process")), mapping(document.get("disk"))
    started, now = number(process.get("started_at")), number(document.get("now"))
    free, total = number(disk.get("free_bytes")), number(disk.get("total_bytes"))
    slots = number(process.get("slots"))  # of tasks that relays share out; a single process has no use for them
    free_share = percent(share(free, total))
    return {
        "Service": [
            ("Version", text(document.get("version"))),
            ("Interface", text(document.get("api_version"))),
            ("Runs on", text(process.get("hostname"))),
            ("PID", None if process.get("pid") is None else str(process["pid"])),
            ("Role", text(process.get("role"))),
            ("Python", text(process.get("python_version"))),
            ("Running", None if started is None or now is None else duration(max(0.0, now - started))),
            ("Memory", size(number(process.get("memory_bytes")))),
            ("Processor time", duration(number(process.get("cpu_s")))),
            ("Open files", count(number(process.get("open_files")))),
            *([("Slots", count(slots))] if slots is not None else []),
        ],
        "Store": [
            ("Kind", text(store.get("kind"))),
            ("State", "up" if store.get("is_up") else "down"),
            ("Version", text(store.get("version"))),
            ("Schema revision", text(store.get("schema"))),
            ("Size", size(number(store.get("size_bytes")))),
            ("Disk", text(disk.get("path"))),
            ("Free on disk", None if free is None else f"{size(free)} ({free_share})"),
        ],
        "Broker": [
            ("Kind", text(broker.get("kind"))),
            ("State", "up" if broker.get("is_up") else "down"),
            ("Address", text(broker.get("address"))),
        ],
        "What there is": [
            ("Endpoints", amounts(document.get("endpoints"))),
            ("Endpoints online", count(number(document.get("endpoints_online")))),
            ("Versions of endpoints", amounts(document.get("endpoint_versions"))),
            ("Tasks", amounts(document.get("tasks"))),
            ("Users", count(number(document.get("users")))),
            ("Programs", count(number(document.get("clients")))),
        ],
        "Since this process started": [
            ("Tasks accepted", count(number(process.get("tasks_accepted")))),
            ("Tasks succeeded", count(number(process.get("tasks_succeeded")))),
            ("Tasks failed", count(number(process.get("tasks_failed")))),
            ("Requests refused", count(number(process.get("requests_refused")))),
            ("Results dropped", count(number(process.get("results_dropped")))),
            ("Oldest result not stored yet", duration(number(process.get("oldest_unstored_result_s")))),
        ],
    }
