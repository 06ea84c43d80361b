"""What an operator may choose, and every limit and period of the service, in one frozen object.

`sources` reads them from a file, the environment and the command line; tests make their own. Units are in the names.
docs/reference/settings.md explains each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from farcall.service.oidc.provider import OidcProvider
from farcall.wire import limits

__all__ = ["ServiceSettings"]


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of one service process.

    Attributes:
        data_dir: holds the database, the log and the state files; private to the operator.
        role: what this process does of what a service does: answer HTTP ("api"), hand tasks and results on ("relay"),
            show the web console ("console"), or everything. Several processes need PostgreSQL and RabbitMQ; see
            `farcall.service.roles`.
        console: show the web console, if this process answers people and NiceGUI is installed.
        store: URL of PostgreSQL or SQLite, passwords and all: never shown or logged; None means SQLite in
            `data_dir`.
        public_host: host name put into the broker URLs that are handed out; None means the host by which the
            HTTP request reached the service.
        amqp_advertised_port: likewise the port; None means the port that the embedded broker listens on.
        tls_cert, tls_key: PEM files, for HTTPS and AMQPS; None: no TLS, and None: the key is in `tls_cert`, too.
        insecure: may listen on a network without TLS.
        trusted_proxies: addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto` count.
        feed_window_messages, feed_window_bytes: how much of one queue may be in the broker unacknowledged.
        page_tasks: rows read from the store at once by a feed.
        presence_write_period_s: at most this long are status reports kept in memory only.
        replay_window_s: how long the answer to a submission without idempotency key is kept when the client
            went away before it was sent.
        requests_per_s, request_burst: of one identity, in the long run and at once; 0 requests_per_s: no limit.
        max_queued_tasks_per_endpoint: tasks of one endpoint that have not ended; 0: no limit.
        live_waiters_per_identity: requests of one identity for the live state of endpoints at the same time, those
            that do not wait for news included.
        broker: URL of RabbitMQ with the service's account, password and all: never shown or logged; None means the
            broker in this process.
        broker_management: URL of RabbitMQ's management interface; None means port 15672 of the same host, with the same
            account.
        broker_auth_secret: what RabbitMQ must name in the path when it asks about logins; None: only this machine may
            ask.
        broker_window_messages, broker_window_bytes: how much of one endpoint's unfinished tasks may be in RabbitMQ.
        amqp_advertised_scheme: likewise the scheme; None means that of `broker`; without one amqps if there is a
            certificate, else amqp.
        metrics_access: who may read /metrics; see `farcall.service.ops.routes`.
        local_domain: what stands behind the @ in the user names of this service's own accounts.
        access_token_s, refresh_token_s: lifetimes; a refresh token's begins anew each time that it is used.
        login_s: how long a browser stays logged in.
        code_s: how long an authorization code can be changed for tokens, also one that a person copies.
        device_code_s: how long a login on another device may take.
        accounts_check_s: how soon this process notices that rights were taken away elsewhere.
        ha_function_retention_s: a function for high assurance is deleted so long after its last task.
        history_minutes_s, history_hours_s: so long is what went on at endpoints kept per minute, and per hour.
        usage_retention_s: how long it is known what was used, per day.
        audit_submissions: whether each request that submits tasks is recorded in the audit table.
        log_format: text for people, or one JSON object per line.
        oidc: providers to log in with, in the order of their buttons.
    """

    data_dir: Path
    role: Literal["all", "api", "relay", "console"] = "all"
    console: bool = True
    store: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 5000
    amqp_port: int = 5672
    broker: str | None = field(default=None, repr=False)
    broker_management: str | None = field(default=None, repr=False)
    broker_auth_secret: str | None = field(default=None, repr=False)
    public_host: str | None = None
    amqp_advertised_port: int | None = None
    amqp_advertised_scheme: Literal["amqp", "amqps"] | None = None
    amqp_heartbeat_s: int = 30
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_minimum_version: Literal["1.2", "1.3"] = "1.2"
    insecure: bool = False
    trusted_proxies: tuple[str, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    metrics_access: Literal["local", "token", "open", "off"] = "local"

    oidc: tuple[OidcProvider, ...] = ()

    requests_per_s: float = 200.0
    request_burst: int = 400
    max_queued_tasks_per_endpoint: int = 1_000_000
    live_waiters_per_identity: int = 100
    payload_limit_bytes: int = limits.PAYLOAD_LIMIT_BYTES
    request_limit_bytes: int = limits.REQUEST_LIMIT_BYTES
    batch_limit_tasks: int = limits.SUBMIT_BATCH_LIMIT_TASKS
    task_lifetime_s: float = limits.TASK_LIFETIME_S
    result_retention_s: float = limits.RESULT_RETENTION_S
    idempotency_s: float = 24 * 3600.0
    replay_window_s: float = 120.0
    lock_s: float = 5.0
    ha_function_retention_s: float = 90 * 24 * 3600.0
    history_minutes_s: float = 2 * 24 * 3600.0
    history_hours_s: float = 90 * 24 * 3600.0
    usage_retention_s: float = 730 * 24 * 3600.0
    audit_submissions: bool = True
    token_cache_s: float = 60.0

    local_domain: str = "local"
    access_token_s: float = 24 * 3600.0
    refresh_token_s: float = 180 * 24 * 3600.0
    login_s: float = 12 * 3600.0
    code_s: float = 600.0
    device_code_s: float = 900.0
    accounts_check_s: float = 2.0

    feed_window_messages: int = 1000
    feed_window_bytes: int = 16 * 1024 * 1024
    broker_window_messages: int = 10_000
    broker_window_bytes: int = 64 * 1024 * 1024
    page_tasks: int = 500
    result_batch_messages: int = 1000
    result_batch_bytes: int = 16 * 1024 * 1024
    code_cache_bytes: int = 16 * 1024 * 1024
    presence_write_period_s: float = 3.0
    sweep_period_s: float = 60.0
    sweep_batch: int = 500
    group_queue_idle_s: float = 600.0

    @property
    def store_url(self) -> str:
        """The URL of the store, with its password if it has one."""
        return self.store or f"sqlite:///{self.data_dir / 'farcall.db'}"
