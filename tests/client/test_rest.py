from __future__ import annotations

import multiprocessing
import re
import socket
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from farcall.client.rest import ApiClient, uuid_text
from farcall.client.retry import RetryPolicy
from farcall.client.tokens import StoredToken, TokenStore
from farcall.sdk import Client
from farcall.wire.errors import (
    ApiError,
    EndpointNotFound,
    NotAService,
    PayloadTooLarge,
    RateLimited,
    ServiceUnavailable,
    ServiceUnreachable,
    Unauthenticated,
)
from farcall.wire.rest import EndpointRegistration, FunctionRegistration, ResultConnection, SubmitRequest

QUICK = RetryPolicy(first_s=0.001, longest_s=0.002, budget_s=20, unmet_budget_s=20)
HASTY = RetryPolicy(first_s=0.001, longest_s=0.002, unmet_budget_s=0.005)
TASK, FUNCTION, ENDPOINT, GROUP = (str(uuid4()) for _ in range(4))
SUBMITTED = {"request_id": str(uuid4()), "task_group_id": GROUP, "endpoint_id": ENDPOINT, "tasks": {FUNCTION: [TASK]}}
REQUEST = SubmitRequest(tasks={FUNCTION: ["payload"]}, create_queue=True)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenStore:
    monkeypatch.delenv("FARCALL_TOKEN", raising=False)
    return TokenStore(tmp_path / "tokens.json")


@pytest.fixture
def client(scripted_service, store):
    with ApiClient(scripted_service.url, "fc_token", store=store, retry=QUICK) as client:
        yield client


def test_a_submission_travels_with_key_and_token_and_without_absent_members(client, scripted_service) -> None:
    scripted_service.answers((200, {}, {**SUBMITTED, "later_addition": 1}))
    response = client.submit(UUID(ENDPOINT), REQUEST, "key-1")
    (request,) = scripted_service.requests
    assert (request.method, request.path) == ("POST", f"/v3/endpoints/{ENDPOINT}/submit")
    assert request.headers["idempotency-key"] == "key-1"
    assert request.headers["authorization"] == "Bearer fc_token"
    assert request.document == {"tasks": {FUNCTION: ["payload"]}, "create_queue": True}
    assert response.tasks == {FUNCTION: [TASK]}


def test_requests_share_one_connection(client, scripted_service) -> None:
    for _ in range(3):
        client.version()
    assert len({request.client for request in scripted_service.requests}) == 1


def test_a_submission_whose_answer_got_lost_is_repeated_with_the_same_key(client, scripted_service) -> None:
    scripted_service.answers((0, {}, None), (503, {"retry-after": "0"}, {}), (200, {}, SUBMITTED))
    assert client.submit(ENDPOINT, REQUEST, "key-1").task_group_id == GROUP
    assert [request.headers["idempotency-key"] for request in scripted_service.requests] == ["key-1"] * 3


def test_a_submission_without_key_is_not_repeated_once_it_was_sent(client, scripted_service) -> None:
    scripted_service.answers((0, {}, None))
    with pytest.raises(ServiceUnreachable):
        client.submit(ENDPOINT, REQUEST, None)
    assert len(scripted_service.requests) == 1


def test_an_answer_that_does_not_come_in_time_counts_as_lost(scripted_service, store) -> None:
    go_on = threading.Event()

    def slow_at_first(request):
        if len(scripted_service.requests) == 1:
            go_on.wait(60)
        return 200, {}, SUBMITTED

    scripted_service.script = slow_at_first
    policy = RetryPolicy(first_s=0.001, budget_s=60, unmet_budget_s=60)
    with ApiClient(scripted_service.url, "t", store=store, timeout_s=0.2, retry=policy) as client:
        client.submit(ENDPOINT, REQUEST, "key-1")
    go_on.set()
    assert len(scripted_service.requests) >= 2


def test_a_service_that_keeps_refusing_is_given_up_with_its_own_error(scripted_service, store) -> None:
    scripted_service.answers((429, {}, {"code": "RATE_LIMITED", "message": "slow down"}))
    policy = RetryPolicy(first_s=0.05, longest_s=0.05, budget_s=1.0)
    with (
        ApiClient(scripted_service.url, "t", store=store, retry=policy) as client,
        pytest.raises(RateLimited, match="slow down"),
    ):
        client.version()
    assert len(scripted_service.requests) > 1


def test_an_event_ends_the_wait_for_a_retry(client, scripted_service) -> None:
    scripted_service.answers((503, {"retry-after": "19"}, {"message": "later"}))
    interrupt = threading.Event()
    interrupt.set()
    with pytest.raises(ServiceUnavailable):
        client.submit(ENDPOINT, REQUEST, "key-1", interrupt=interrupt)
    assert len(scripted_service.requests) == 1


def test_closing_ends_the_wait_for_a_retry(client, scripted_service) -> None:
    def close_then_refuse(request):
        client.close()
        return 503, {"retry-after": "19"}, {"message": "later"}

    scripted_service.script = close_then_refuse
    with pytest.raises((ServiceUnavailable, ServiceUnreachable)):
        client.version()
    with pytest.raises(ServiceUnreachable, match="closed"):
        client.version()


def test_nobody_listening_is_said_with_what_to_do(store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        ApiClient(f"http://127.0.0.1:{port}", "t", store=store, retry=HASTY) as client,
        pytest.raises(ServiceUnreachable, match=rf"http://127.0.0.1:{port}.*farcall-service status"),
    ):
        client.version()


def test_errors_arrive_as_their_own_class(client, scripted_service) -> None:
    scripted_service.answers((404, {}, EndpointNotFound("no such endpoint").to_document()))
    with pytest.raises(EndpointNotFound, match="no such endpoint"):
        client.endpoint_status(ENDPOINT)
    scripted_service.answers((413, {}, PayloadTooLarge("too large").to_document()))
    with pytest.raises(PayloadTooLarge, match="too large"):
        client.submit(ENDPOINT, REQUEST, "k")


def test_a_stranger_at_the_address_is_recognised(client, scripted_service) -> None:
    scripted_service.answers((200, {"content-type": "text/html"}, b"<html>hello</html>"))
    with pytest.raises(NotAService, match=r"not a Farcall service \(HTTP 200, text/html\)"):
        client.version()
    scripted_service.answers((404, {"content-type": "text/html"}, b"<html>no</html>"))
    with pytest.raises(NotAService, match=r"not a Farcall service \(HTTP 404, text/html\).*`farcall login URL`"):
        client.version()
    scripted_service.answers((404, {"content-type": "application/json"}, {"detail": "Not Found"}))
    with pytest.raises(NotAService, match=r"HTTP 404, application/json"):
        client.version()
    scripted_service.answers((403, {}, b""))
    with pytest.raises(NotAService, match=r"HTTP 403, no content type"):
        client.version()


@pytest.mark.parametrize("status", [413, 500])
def test_a_proxys_own_words_do_not_make_a_stranger_of_the_service_behind_it(
    client, scripted_service, status: int
) -> None:
    scripted_service.answers((status, {"content-type": "text/html"}, b"<html>nginx</html>"))
    with pytest.raises(ApiError) as caught:
        client.version()
    assert not isinstance(caught.value, NotAService)
    assert caught.value.http_status == status


@pytest.mark.parametrize("document", [[], {}, {"tasks": {}}, "text", None, 3])
def test_an_answer_of_another_shape_is_an_error_and_not_a_crash(client, scripted_service, document) -> None:
    scripted_service.answers((200, {}, document))
    for call in (
        lambda: client.submit(ENDPOINT, REQUEST, "k"),
        lambda: client.register_endpoint(EndpointRegistration(endpoint_name="n")),
        lambda: client.register_function(FunctionRegistration(function_name="f", function_code="c")),
        client.result_connection,
        lambda: client.batch_status([TASK]),
    ):
        with pytest.raises(NotAService, match=re.escape(scripted_service.url)):
            call()


def test_without_a_token_the_error_says_how_to_get_one(scripted_service, store) -> None:
    scripted_service.answers((401, {}, Unauthenticated("no token").to_document()))
    with (
        ApiClient(scripted_service.url, store=store, retry=QUICK) as client,
        pytest.raises(Unauthenticated, match=rf"farcall login {scripted_service.url}.*FARCALL_TOKEN"),
    ):
        client.whoami()
    assert "authorization" not in scripted_service.requests[0].headers


def _stored(token: str) -> StoredToken:
    return StoredToken(access_token=token, identity_id=str(uuid4()), username="u")


def test_a_refused_token_is_looked_up_once_more(scripted_service, store) -> None:
    store.put(scripted_service.url, _stored("old"))

    def log_in_meanwhile(request):
        if request.headers.get("authorization") == "Bearer new":
            return 200, {}, {"identity_id": "x", "username": "u"}
        store.put(scripted_service.url, _stored("new"))
        return 401, {}, {"code": "UNAUTHENTICATED"}

    scripted_service.script = log_in_meanwhile
    with ApiClient(scripted_service.url, store=store, retry=QUICK) as client:
        assert client.whoami()["username"] == "u"
    assert len(scripted_service.requests) == 2


def test_a_token_that_stays_refused_is_not_tried_for_ever(scripted_service, store) -> None:
    store.put(scripted_service.url, _stored("old"))
    scripted_service.answers((401, {}, {"code": "UNAUTHENTICATED", "message": "unknown token"}))
    with (
        ApiClient(scripted_service.url, store=store, retry=QUICK) as client,
        pytest.raises(Unauthenticated, match=r"tokens\.json \(unknown token\)"),
    ):
        client.whoami()
    assert len(scripted_service.requests) == 1


def test_the_environments_token_goes_before_the_store(scripted_service, store, monkeypatch) -> None:
    store.put(scripted_service.url, _stored("stored"))
    monkeypatch.setenv("FARCALL_TOKEN", "from-environment\n")
    with ApiClient(scripted_service.url, store=store, retry=QUICK) as client:
        client.version()
    assert scripted_service.requests[0].headers["authorization"] == "Bearer from-environment"


@pytest.mark.parametrize("token", ["two words", "zwölf", "a\nb", "   "])
def test_what_cannot_be_a_token_is_refused_at_once(scripted_service, store, token) -> None:
    with pytest.raises(ValueError, match="no token"):
        ApiClient(scripted_service.url, token, store=store)


def test_a_registration_brings_the_queues_of_its_kind(client, scripted_service) -> None:
    publish = {"exchange": "results", "routing_key": "k", "mandatory": True, "properties": {"delivery_mode": 2}}
    info = {"connection_url": "amqp://u:p@h:1/%2F", "queue": "q", "exchange": "e"}
    document = {
        "endpoint_id": ENDPOINT,
        "heartbeat_queue_info": {**info, "queue_publish_kwargs": publish},
        "task_queue_info": info,
        "result_queue_info": {**info, "queue_publish_kwargs": publish},
        "warnings": ["careful"],
    }
    scripted_service.answers((200, {}, document))
    response = client.register_endpoint(EndpointRegistration(endpoint_name="n", direct=True), ENDPOINT)
    assert scripted_service.requests[0].method == "PUT"
    assert scripted_service.requests[0].document["direct"] is True
    assert response.endpoint_id == ENDPOINT
    assert response.command_queue_info is None
    assert response.task_queue_info.queue_publish_kwargs is None
    assert response.result_queue_info.queue_publish_kwargs.routing_key == "k"
    assert response.warnings == ["careful"]
    client.register_endpoint(EndpointRegistration(endpoint_name="n"))
    assert (scripted_service.requests[1].method, scripted_service.requests[1].path) == ("POST", "/v3/endpoints")


def test_every_call_uses_the_protocols_path(client, scripted_service) -> None:
    answers = {
        "/v2/get_amqp_result_connection_url": {"queue_prefix": "tg.x.", "connection_url": "amqp://h"},
        "/v3/functions": {"function_uuid": FUNCTION},
        "/v2/batch_status": {"response": "batch", "results": {TASK: {"task_id": TASK}}},
        "/v2/endpoints?role=any": [{"uuid": ENDPOINT}],
    }
    scripted_service.script = lambda request: (200, {}, answers.get(request.path, {}))
    assert client.result_connection() == ResultConnection(queue_prefix="tg.x.", connection_url="amqp://h")
    assert client.register_function(FunctionRegistration(function_name="f", function_code="c")) == FUNCTION
    assert client.batch_status([TASK]) == {TASK: {"task_id": TASK}}
    assert client.endpoints("any") == [{"uuid": ENDPOINT}]
    client.version()
    client.whoami()
    client.get_function(FUNCTION)
    client.delete_function(FUNCTION)
    client.task(TASK)
    client.task_group(GROUP)
    client.cancel_task(TASK)
    client.endpoint(ENDPOINT)
    client.endpoint_status(ENDPOINT)
    client.lock_endpoint(ENDPOINT)
    client.delete_endpoint(ENDPOINT)
    client.allowed_functions(ENDPOINT)
    assert [(request.method, request.path) for request in scripted_service.requests] == [
        ("GET", "/v2/get_amqp_result_connection_url"),
        ("POST", "/v3/functions"),
        ("POST", "/v2/batch_status"),
        ("GET", "/v2/endpoints?role=any"),
        ("GET", "/v2/version?service=all"),
        ("GET", "/v3/whoami"),
        ("GET", f"/v2/functions/{FUNCTION}"),
        ("DELETE", f"/v2/functions/{FUNCTION}"),
        ("GET", f"/v2/tasks/{TASK}"),
        ("GET", f"/v2/taskgroup/{GROUP}"),
        ("POST", f"/v3/tasks/{TASK}/cancel"),
        ("GET", f"/v2/endpoints/{ENDPOINT}"),
        ("GET", f"/v2/endpoints/{ENDPOINT}/status"),
        ("POST", f"/v3/endpoints/{ENDPOINT}/lock"),
        ("DELETE", f"/v2/endpoints/{ENDPOINT}"),
        ("GET", f"/v3/endpoints/{ENDPOINT}/allowed_functions"),
    ]


def test_ids_and_roles_are_checked_before_anything_is_sent(client, scripted_service) -> None:
    with pytest.raises(ValueError, match=r"task_id must be a UUID.*'nonsense'"):
        client.task("nonsense")
    with pytest.raises(ValueError, match="endpoint_id must be a UUID"):
        client.endpoint("../functions")
    with pytest.raises(ValueError, match="role"):
        client.endpoints("all")
    assert scripted_service.requests == []
    assert uuid_text(TASK.upper(), "x") == TASK


def test_a_forked_child_opens_connections_of_its_own(client, scripted_service) -> None:
    client.version()
    child = multiprocessing.get_context("fork").Process(target=client.version)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    client.version()
    assert len(scripted_service.requests) == 3
    ports = [request.client[1] for request in scripted_service.requests]
    assert ports[0] == ports[2] != ports[1]


def test_an_authorizer_of_the_sdk_is_asked_for_each_request(scripted_service, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    tokens = iter(["Bearer one", "Bearer two"])

    class Authorizer:
        def get_authorization_header(self) -> str:
            return next(tokens)

    client = Client(url=scripted_service.url, authorizer=Authorizer(), do_version_check=False)
    client.version_check()
    client.version_check()
    sent = [request.headers["authorization"] for request in scripted_service.requests]
    assert sent == ["Bearer one", "Bearer two"]
    with pytest.raises(ValueError, match="get_authorization_header"):
        Client(authorizer=object(), do_version_check=False)


def test_endpoints_are_asked_about_in_the_words_of_the_interface(client, scripted_service) -> None:
    path = f"/v3/endpoints/{ENDPOINT}"
    for ask, wanted in (
        (lambda: client.endpoint_page(search="a b", online=True, kind=None), "/v3/endpoints?search=a+b&online=true"),
        (lambda: client.endpoint_details(ENDPOINT), path),
        (lambda: client.endpoint_live(ENDPOINT), f"{path}/live?wait_s=25"),
        (lambda: client.endpoint_live(ENDPOINT, "v1", wait_s=5), f"{path}/live?after=v1&wait_s=5"),
        (lambda: client.endpoint_history(ENDPOINT, since=1.5, step_s=60), f"{path}/history?since=1.5&step_s=60"),
        (lambda: client.stop_user_endpoint(ENDPOINT, "no & yes"), f"{path}/stop?reason=no+%26+yes"),
    ):
        scripted_service.answers((200, {}, {"told": 1}))
        assert ask() == {"told": 1}
        assert scripted_service.requests[-1].path == wanted
    assert scripted_service.requests[-1].method == "POST"
