"""The OAuth 2 protocol, by `oauthlib`, over one transaction of the store.

Each function here is a unit for `Database.write` (or `read`): it makes a server of `oauthlib`'s endpoints whose
questions are answered from the connection, runs one request through it, and hands back values. So a grant is stored
whole or not at all, and a code or a refresh token that arrives twice at the same moment is changed once.

Added to plain OAuth 2: one token per resource server in an answer, `id_token`, and telling a refresh token that was
stolen from one whose answer was lost.

Source: RFC 6749, 7009, 7636, 7662, 8252, 8628, 9700; wire protocol, token endpoint.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from oauthlib.common import Request, add_params_to_uri
from oauthlib.oauth2 import (
    AccessDeniedError,
    AuthorizationEndpoint,
    BearerToken,
    ClientCredentialsGrant,
    DeviceAuthorizationEndpoint,
    DeviceCodeGrant,
    FatalClientError,
    IntrospectEndpoint,
    OAuth2Error,
    RefreshTokenGrant,
    RequestValidator,
    RevocationEndpoint,
    TokenEndpoint,
)
from oauthlib.oauth2.rfc6749.errors import (
    InvalidClientIdError,
    InvalidRedirectURIError,
    MismatchingRedirectURIError,
    MissingClientIdError,
    MissingRedirectURIError,
)
from oauthlib.oauth2.rfc6749.grant_types import AuthorizationCodeGrant
from oauthlib.oauth2.rfc6749.grant_types.authorization_code import code_challenge_method_s256
from sqlalchemy import Connection

from farcall.service.accounts.rules import Cut, new_token
from farcall.service.accounts.store import authentications_of, cut_broker_logins
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.clients.rules import Client, is_redirect_allowed, is_secret, rotates_refresh_tokens
from farcall.service.clients.store import find_client
from farcall.service.ids import new_id
from farcall.service.login.rules import Session
from farcall.service.login.store import end_session
from farcall.service.oauth import store
from farcall.service.oauth.keys import SigningKey
from farcall.service.oauth.rules import (
    DEFAULT_SCOPES,
    DEVICE_GRANT,
    DEVICE_INTERVAL_S,
    POLL_SLACK_S,
    Answer,
    AuthorizationAsked,
    CodeRow,
    DeviceRow,
    Lifetimes,
    RefreshRow,
    Refused,
    by_resource_server,
    introspection_document,
    new_user_code,
    provider_id,
)
from farcall.service.users.store import find_people
from farcall.wire.auth import OPENID_SCOPE, SERVER_OF_SCOPE

__all__ = [
    "Asking",
    "authorize",
    "begin_device",
    "check_authorization",
    "deny",
    "exchange",
    "introspect",
    "revoke",
]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One request to the OAuth 2 server.

    Attributes:
        base: how the caller reached this service, without a slash at the end.
        host: host and port of that.
        uri: the request's own.
        body: form-encoded; empty for GET.
        headers: those that count (authorization, content-type).
        address: where it comes from.
        now: Unix seconds.
    """

    base: str
    host: str
    uri: str
    body: str
    headers: Mapping[str, str]
    address: str | None
    now: float
    lifetimes: Lifetimes


class _Malformed(Exception):
    """The request cannot even be read."""


# --- The person's side -------------------------------------------------------------------------------------------


def check_authorization(conn: Connection, asking: Asking) -> AuthorizationAsked | Refused:
    """Whether a program may ask a person for this, in this way. Reads only."""
    validator = _Validator(conn, asking)
    try:
        scopes, found = _server(validator, AuthorizationEndpoint).validate_authorization_request(asking.uri)
    except FatalClientError as exc:
        return Refused(text=_fatal_text(exc))
    except OAuth2Error as exc:
        location = str(add_params_to_uri(exc.redirect_uri, exc.twotuples)) if exc.redirect_uri else None
        return Refused(text=str(exc.description or exc.error), location=location)
    except (_Malformed, ValueError):
        return Refused(text="The link that led here is damaged. Begin again in the program that gave it.")
    return AuthorizationAsked(
        client=found["request"].client, scopes=tuple(scopes), redirect_uri=found["redirect_uri"], state=found["state"]
    )


def authorize(conn: Connection, asking: Asking, session: Session, identity_id: str) -> Refused | str:
    """The person agrees. Returns where to send them, with a code; checks everything anew."""
    checked = check_authorization(conn, asking)
    if isinstance(checked, Refused):
        return checked
    validator = _Validator(conn, asking, session_id=session.id, identity_id=identity_id)
    headers, _, _ = _server(validator, AuthorizationEndpoint).create_authorization_response(
        asking.uri, scopes=list(checked.scopes)
    )
    store.put_consent(conn, identity_id, checked.client.id, checked.scopes, asking.now)
    actor = Actor(id=identity_id, name=session.usernames.get(identity_id, session.person_name), address=asking.address)
    detail = {"client": checked.client.name, "scopes": list(checked.scopes)}
    record(conn, actor, "oauth.consent", "client", checked.client.id, at=asking.now, detail=detail)
    return str(headers["Location"])


def deny(asked: AuthorizationAsked) -> str:
    """The person does not agree: where to send them."""
    error = AccessDeniedError(state=asked.state)
    return str(add_params_to_uri(asked.redirect_uri, error.twotuples))


# --- The programs' side ------------------------------------------------------------------------------------------


def exchange(conn: Connection, asking: Asking, key: SigningKey | None) -> Answer:
    """POST /v2/oauth2/token.

    Args:
        key: needed where people log in; None where the grant cannot need it.
    """
    validator = _Validator(conn, asking, key=key)
    try:
        headers, text, status = _server(validator, TokenEndpoint).create_token_response(
            asking.uri, "POST", _body(asking), dict(asking.headers)
        )
    except OAuth2Error as exc:
        return _error_answer(exc)
    except (_Malformed, ValueError):
        return _unreadable()
    return validator.answer(status, text, headers)


def begin_device(conn: Connection, asking: Asking) -> Answer:
    """POST /v2/oauth2/device: a login whose person is at another device."""
    validator = _Validator(conn, asking)
    page = f"{asking.base}/device"
    endpoint = DeviceAuthorizationEndpoint(
        validator,
        verification_uri=page,
        expires_in=int(asking.lifetimes.device_code_s),
        interval=DEVICE_INTERVAL_S,
        verification_uri_complete=f"{page}?user_code={{user_code}}",
        user_code_generator=new_user_code,
    )
    try:
        headers, document, status = endpoint.create_device_authorization_response(
            asking.uri, "POST", _body(asking), dict(asking.headers)
        )
        request = _request(asking)
    except OAuth2Error as exc:
        return _error_answer(exc)
    except (_Malformed, ValueError):
        return _unreadable()
    asked = {name: str(value) for name, value in dict(request.decoded_body or []).items()}
    row = DeviceRow(
        hash="",
        user_code=document["user_code"],
        client_id=validator.client.id if validator.client else "",
        scopes=tuple(document["scope"].split()),
        state="pending",
        params={name: value[:1000] for name, value in asked.items() if name == "prompt" or name.startswith("session_")},
        session_id=None,
        identity_id=None,
        created_at=asking.now,
        expires_at=asking.now + asking.lifetimes.device_code_s,
        last_poll_at=None,
    )
    store.add_device(conn, document["device_code"], row)
    return Answer(status=status, document=document, headers={**headers, **_NO_STORE})


def revoke(conn: Connection, asking: Asking) -> Answer:
    """POST /v2/oauth2/token/revoke."""
    validator = _Validator(conn, asking)
    endpoint = RevocationEndpoint(validator)
    try:
        headers, text, status = endpoint.create_revocation_response(
            asking.uri, "POST", _body(asking), dict(asking.headers)
        )
    except (_Malformed, ValueError):
        return _unreadable()
    return validator.answer(status, text or '{"active": false}', headers)


def introspect(conn: Connection, asking: Asking) -> Answer:
    """POST /v2/oauth2/token/introspect, for programs with a secret. Reads only."""
    validator = _Validator(conn, asking, needs_secret=True)
    endpoint = IntrospectEndpoint(validator)
    try:
        headers, text, status = endpoint.create_introspect_response(
            asking.uri, "POST", _body(asking), dict(asking.headers)
        )
    except (_Malformed, ValueError):
        return _unreadable()
    return validator.answer(status, text, headers)


# --- oauthlib's questions ----------------------------------------------------------------------------------------


class _CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]  # oauthlib has no types
    """PKCE with S256 only. Source: RFC 9700, section 2.1.1."""

    _code_challenge_methods: Final = {"S256": code_challenge_method_s256}


class _Validator(RequestValidator):  # type: ignore[misc]  # oauthlib has no types
    """Answers from the store, and remembers what was found for the answers that follow. Serves one request."""

    def __init__(
        self,
        conn: Connection,
        asking: Asking,
        *,
        key: SigningKey | None = None,
        session_id: str | None = None,
        identity_id: str | None = None,
        needs_secret: bool = False,
    ) -> None:
        super().__init__()
        self._conn = conn
        self._asking = asking
        self._key = key
        self._session_id = session_id
        self._identity_id = identity_id
        self._needs_secret = needs_secret
        self._code: CodeRow | None = None
        self._refresh: RefreshRow | None = None
        self._device: DeviceRow | None = None
        self._cuts: Sequence[Cut] = ()
        self._is_revoking = False
        self.client: Client | None = None

    def answer(self, status: int, text: str, headers: Mapping[str, str]) -> Answer:
        return Answer(
            status=status,
            document=json.loads(text),
            headers={**headers, **_NO_STORE},
            cuts=self._cuts,
            is_revoking=self._is_revoking,
        )

    # Clients.

    def client_authentication_required(self, request: Request, *_args: Any, **_kwargs: Any) -> bool:
        if self._needs_secret or "authorization" in request.headers or request.client_secret:
            return True
        found = self._find_client(request.client_id)
        return found is None or found.is_confidential

    def authenticate_client(self, request: Request, *_args: Any, **_kwargs: Any) -> bool:
        client_id, secret = _credentials(request)
        client = self._find_client(client_id)
        if not is_secret(client, secret):
            return False
        self._is_client(request, client)
        return True

    def authenticate_client_id(self, client_id: str, request: Request, *_args: Any, **_kwargs: Any) -> bool:
        client = self._find_client(client_id)
        if client is None or client.is_confidential:
            return False
        self._is_client(request, client)
        return True

    def validate_client_id(self, client_id: str, request: Request, *_args: Any, **_kwargs: Any) -> bool:
        client = self._find_client(client_id)
        if client is None:
            return False
        self._is_client(request, client)
        return True

    def validate_grant_type(
        self, _client_id: str, grant_type: str, client: Client, _request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        if grant_type == "client_credentials":
            return client.is_confidential
        return grant_type in ("authorization_code", "refresh_token", DEVICE_GRANT)

    def validate_response_type(
        self, _client_id: str, response_type: str, _client: Client, _request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        return response_type == "code"

    def _find_client(self, client_id: str | None) -> Client | None:
        if not client_id:
            return None
        found = find_client(self._conn, client_id)
        return found if found is not None and found.revoked_at is None else None

    def _is_client(self, request: Request, client: Client | None) -> None:
        assert client is not None
        self.client = request.client = client
        request.client_id = client.id  # in the form that is stored

    # Scopes.

    def get_default_scopes(self, _client_id: str, _request: Request, *_args: Any, **_kwargs: Any) -> list[str]:
        return list(DEFAULT_SCOPES)

    def validate_scopes(
        self, _client_id: str, scopes: Sequence[str], _client: Client, request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        request.scopes = list(dict.fromkeys(scopes))
        return all(each in SERVER_OF_SCOPE for each in scopes)

    # Where people are sent.

    def validate_redirect_uri(
        self, _client_id: str, redirect_uri: str, request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        return is_redirect_allowed(request.client, redirect_uri, self._asking.host)

    def get_default_redirect_uri(self, client_id: str, request: Request, *_args: Any, **_kwargs: Any) -> str | None:
        client = request.client or self._find_client(client_id)
        return client.redirect_uris[0] if client is not None and len(client.redirect_uris) == 1 else None

    def confirm_redirect_uri(
        self,
        _client_id: str,
        _code: str,
        redirect_uri: str,
        _client: Client,
        _request: Request,
        *_args: Any,
        **_kwargs: Any,
    ) -> bool:
        return self._code is not None and self._code.redirect_uri == redirect_uri

    # Codes.

    def is_pkce_required(self, _client_id: str, request: Request) -> bool:
        return request.client is None or not request.client.is_confidential

    def save_authorization_code(
        self, client_id: str, code: Mapping[str, str], request: Request, *_args: Any, **_kwargs: Any
    ) -> None:
        assert self._session_id is not None
        assert self._identity_id is not None
        asked = dict(request._params)
        row = CodeRow(
            client_id=client_id,
            session_id=self._session_id,
            identity_id=self._identity_id,
            family_id=new_id(),
            scopes=tuple(request.scopes),
            redirect_uri=request.redirect_uri,
            challenge=request.code_challenge,
            challenge_method=request.code_challenge_method,
            nonce=request.nonce and request.nonce[:1000],
            offline=asked.get("access_type") == "offline",
            expires_at=self._asking.now + self._asking.lifetimes.code_s,
            used_at=None,
        )
        store.add_code(self._conn, code["code"], row, self._asking.now)

    def validate_code(
        self, client_id: str, code: str, _client: Client, request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        row = store.find_code(self._conn, code)
        if row is None or row.client_id != client_id:
            return False
        if row.used_at is not None:
            self._stolen(row.family_id, row.identity_id, "oauth.code_reused")
            return False
        people = find_people(self._conn, ids=[row.identity_id])
        if self._asking.now >= row.expires_at or not people or people[0].disabled_at is not None:
            return False
        self._code = row
        request.user = people[0]
        request.scopes = list(row.scopes)
        return True

    def get_code_challenge(self, _code: str, _request: Request) -> str | None:
        return self._code.challenge if self._code else None

    def get_code_challenge_method(self, _code: str, _request: Request) -> str | None:
        return self._code.challenge_method if self._code else None

    def invalidate_authorization_code(
        self, _client_id: str, code: str, _request: Request, *_args: Any, **_kwargs: Any
    ) -> None:
        store.use_code(self._conn, code, self._asking.now)

    # Refresh tokens.

    def validate_refresh_token(
        self, refresh_token: str, client: Client, request: Request, *_args: Any, **_kwargs: Any
    ) -> bool:
        row = store.find_refresh(self._conn, refresh_token, self._asking.now)
        if row is None or row.is_void or row.client_id != client.id:
            return False
        if row.replaced_at is not None:
            if store.is_successor_used(self._conn, row):
                self._stolen(row.family_id, row.identity_id, "oauth.refresh_reused")
                return False
            # Nobody ever used what it was changed for, so that answer was lost: the client asks again.
            store.revoke_successors(self._conn, row, self._asking.now)
            self._is_revoking = True
        self._refresh = row
        request.user = next(iter(find_people(self._conn, ids=[row.identity_id])), None)
        return request.user is not None

    def get_original_scopes(self, _refresh_token: str, _request: Request, *_args: Any, **_kwargs: Any) -> list[str]:
        return list(self._refresh.scopes) if self._refresh else []

    def rotate_refresh_token(self, request: Request) -> bool:
        return rotates_refresh_tokens(request.client.id)

    def _stolen(self, family_id: str, identity_id: str, action: str) -> None:
        """Two have the same secret, and nobody can tell which of them is the thief: neither keeps anything."""
        now = self._asking.now
        concerned = store.revoke_family(self._conn, family_id, now)
        self._cuts = cut_broker_logins(self._conn, concerned, now=now)
        self._is_revoking = True
        name = self.client.name if self.client else "(unknown)"
        actor = Actor(id=self.client.id if self.client else None, name=name, address=self._asking.address)
        record(self._conn, actor, action, "user", identity_id, at=now, outcome="refused")

    # Devices.

    def validate_device_code(
        self, client_id: str, code: str, request: Request, *_args: Any, **_kwargs: Any
    ) -> str | None:
        row, now = store.device_of_code(self._conn, code), self._asking.now
        if row is None or row.client_id != client_id or row.state == "used":
            return None
        if now >= row.expires_at:
            return str(DeviceCodeGrant.DEVICE_CODE_EXPIRED)
        if row.state == "denied":
            return str(DeviceCodeGrant.DEVICE_CODE_DENIED)
        if row.state == "pending":
            store.device_polled(self._conn, row.hash, now)
            is_early = row.last_poll_at is not None and now - row.last_poll_at < DEVICE_INTERVAL_S - POLL_SLACK_S
            return str(DeviceCodeGrant.DEVICE_CODE_SLOW_DOWN if is_early else DeviceCodeGrant.DEVICE_CODE_PENDING)
        people = find_people(self._conn, ids=[row.identity_id or ""])
        if not people or people[0].disabled_at is not None:
            return str(DeviceCodeGrant.DEVICE_CODE_DENIED)
        store.device_used(self._conn, row.hash)
        self._device = row
        request.user = people[0]
        request.scopes = list(row.scopes)
        return str(DeviceCodeGrant.DEVICE_CODE_AUTHORIZED)

    # Tokens.

    def save_bearer_token(self, token: dict[str, Any], request: Request, *_args: Any, **_kwargs: Any) -> None:
        """Store what is given out, and complete the document: one token for each resource server."""
        if self._refresh is not None:
            self._save_refreshed(token, request, self._refresh)
            return
        refresh_token = token.pop("refresh_token", None)
        is_offline = self._device is not None or (self._code is not None and self._code.offline)
        family_id = self._code.family_id if self._code else new_id()
        documents: list[dict[str, Any]] = []
        for server, scopes in by_resource_server(request.scopes).items():
            document = {**token, "scope": " ".join(scopes), "resource_server": server}
            if documents:
                document["access_token"] = new_token()
            self._store(document["access_token"], "access", server, scopes, family_id, request)
            if refresh_token is not None and is_offline:
                document["refresh_token"] = new_token()
                self._store(document["refresh_token"], "refresh", server, scopes, family_id, request)
            documents.append(document)
        token.clear()
        token.update(documents[0])
        token["other_tokens"] = documents[1:]
        if self._key is not None and request.user is not None and OPENID_SCOPE in request.scopes:
            token["id_token"] = self._key.sign(self._id_claims(request))
        self._record_grant(request)

    def _save_refreshed(self, token: dict[str, Any], request: Request, row: RefreshRow) -> None:
        now = self._asking.now
        self._store(token["access_token"], "access", row.resource_server, request.scopes, row.family_id, request)
        if token["refresh_token"] != request.refresh_token:
            self._store(token["refresh_token"], "refresh", row.resource_server, row.scopes, row.family_id, request)
            store.refresh_replaced(self._conn, row.hash, now)
        else:
            store.extend_refresh(self._conn, row.hash, now + self._asking.lifetimes.refresh_s)
        token.update(scope=" ".join(request.scopes), resource_server=row.resource_server, other_tokens=[])

    def _store(
        self, text: str, kind: str, server: str, scopes: Sequence[str], family_id: str, request: Request
    ) -> None:
        lifetimes, now = self._asking.lifetimes, self._asking.now
        given = self._code or self._device or self._refresh
        store.add_token_row(
            self._conn,
            text,
            kind=kind,
            identity_id=request.user.id if request.user else request.client.id,
            client_id=request.client.id,
            label=request.client.name,
            resource_server=server,
            scopes=scopes,
            session_id=given.session_id if given else None,
            family_id=family_id,
            now=now,
            expires_at=now + (lifetimes.access_s if kind == "access" else lifetimes.refresh_s),
        )

    def _id_claims(self, request: Request) -> dict[str, Any]:
        person, now = request.user, int(self._asking.now)
        given = self._code or self._device
        linked = {each.id: each.username for each in find_people(self._conn, person_id=person.person_id)}
        proven = authentications_of(self._conn, given.session_id, linked) if given and given.session_id else ()
        claims = {
            "iss": self._asking.base,
            "aud": request.client.id,
            "sub": person.id,
            "iat": now,
            "exp": now + int(self._asking.lifetimes.access_s),
            "preferred_username": person.username,
            "name": person.display_name or person.username,
            "email": person.email,
            "organization": person.organization,
            "identity_provider": provider_id(person.provider),
            "auth_time": int(proven[0].at) if proven else None,
            "nonce": self._code.nonce if self._code else None,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def _record_grant(self, request: Request) -> None:
        person, client = request.user, request.client
        actor = Actor(
            id=person.id if person else client.id,
            name=person.username if person else client.name,
            address=self._asking.address,
        )
        detail = {"client": client.name, "grant": request.grant_type, "scopes": list(request.scopes)}
        record(self._conn, actor, "oauth.grant", "client", client.id, at=self._asking.now, detail=detail)

    def revoke_token(self, token: str, _hint: str | None, request: Request, *_args: Any, **_kwargs: Any) -> None:
        now = self._asking.now
        client_id = request.client.id if request.client else None
        session_id = store.session_of_token(self._conn, token)
        concerned = store.revoke_tokens_of_text(self._conn, token, client_id, now)
        if concerned is None:
            return
        self._is_revoking = True
        if request.client and request.client.is_first_party:  # logging out there is logging out
            if session_id is not None:
                end_session(self._conn, session_id, now)
            return
        # Broker logins belong to the identity, not to one token: its other sessions are cut too, and log in again.
        self._cuts = cut_broker_logins(self._conn, concerned, now=now)
        name = request.client.name if request.client else "(unknown)"
        actor = Actor(id=client_id, name=name, address=self._asking.address)
        record(self._conn, actor, "oauth.revoke", "user", concerned[0] if concerned else None, at=now)

    def introspect_token(
        self, token: str, _hint: str | None, _request: Request, *_args: Any, **_kwargs: Any
    ) -> dict[str, Any] | None:
        row = store.token_for_introspection(self._conn, token, self._asking.now)
        if row is None:
            return None
        person = find_people(self._conn, ids=[row["identity_id"]])[0]
        linked = [each.id for each in find_people(self._conn, person_id=person.person_id) if each.disabled_at is None]
        return introspection_document(row, person, linked, self._asking.base)


def _server(validator: _Validator, kind: type[Any]) -> Any:  # oauthlib has no types
    """One of oauthlib's endpoints with the grants that we have."""
    bearer = BearerToken(
        validator,
        token_generator=lambda _request: new_token(),
        expires_in=int(validator._asking.lifetimes.access_s),
    )
    code_grant = _CodeGrant(validator)
    if kind is AuthorizationEndpoint:
        return AuthorizationEndpoint("code", bearer, {"code": code_grant})
    grants = {
        "authorization_code": code_grant,
        "refresh_token": RefreshTokenGrant(validator),
        "client_credentials": ClientCredentialsGrant(validator),
        DEVICE_GRANT: DeviceCodeGrant(validator),
    }
    return TokenEndpoint("authorization_code", bearer, grants)


def _credentials(request: Request) -> tuple[str | None, str]:
    """What a program says that it is: by the header, else in the body. Source: RFC 6749, section 2.3.1."""
    header = request.headers.get("authorization")
    if header is None:
        return request.client_id, request.client_secret or ""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None, ""
    try:
        client_id, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None, ""
    return unquote_plus(client_id), unquote_plus(secret)


def _request(asking: Asking) -> Request:
    return Request(asking.uri, "POST" if asking.body else "GET", asking.body or None, dict(asking.headers))


def _body(asking: Asking) -> str:
    """The body, if it is a form."""
    if _request(asking).decoded_body is None:
        raise _Malformed
    return asking.body


_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _error_answer(exc: OAuth2Error) -> Answer:
    return Answer(status=exc.status_code, document=json.loads(exc.json), headers={**exc.headers, **_NO_STORE})


def _unreadable() -> Answer:
    document = {"error": "invalid_request", "error_description": "The body is not form-encoded (UTF-8)."}
    return Answer(status=400, document=document, headers=_NO_STORE)


def _fatal_text(exc: FatalClientError) -> str:
    """For the person, who cannot be sent back."""
    texts = {
        InvalidClientIdError: "The program that sent you here is not known to this service, or was revoked.",
        MissingClientIdError: "The link that led here does not say which program asks.",
        MismatchingRedirectURIError: "The program wants you to be sent to an address that is not registered for it.",
        MissingRedirectURIError: "The program does not say where you shall be sent afterwards.",
        InvalidRedirectURIError: "The program wants you to be sent to something that is no address.",
    }
    return texts.get(type(exc)) or f"The link that led here is wrong: {exc.description or exc.error}"
