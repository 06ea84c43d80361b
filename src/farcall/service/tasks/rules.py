"""What may be submitted, by whom, to where. Decides only.

In two steps, because the second needs the store: `plan_submission` looks at the request alone, `check_submission`
at what it refers to, inside the transaction that would write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farcall.service.accounts.rules import Identity
from farcall.service.endpoints.rules import Endpoint, check_use
from farcall.service.functions.rules import Function, is_usable, size_in_bytes, why_not_usable
from farcall.service.ids import canonical_uuid, new_id, new_ids
from farcall.service.managers.rules import check_options
from farcall.service.web.bodies import encode_text
from farcall.wire.errors import (
    Conflict,
    Forbidden,
    FramingError,
    FunctionNotFound,
    FunctionNotPermitted,
    InvalidRequest,
    PayloadTooLarge,
    TaskNotFound,
)
from farcall.wire.framing import unpack_buffers
from farcall.wire.rest import SubmitRequest, SubmitResponse
from farcall.wire.versions import python_minor

__all__ = [
    "Call",
    "Group",
    "SubmissionPlan",
    "check_replay",
    "check_submission",
    "check_task",
    "ha_warning",
    "idempotency_key",
    "plan_submission",
]

_SERIALIZERS_LIMIT = 32
_NAME_LIMIT_CHARS = 1000
_RESOURCES_LIMIT_CHARS = 16 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """One task to be: its id is given out before it is stored."""

    task_id: str
    function_id: str
    payload: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A stored task group."""

    id: str
    owner_id: str
    has_queue: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionPlan:
    """A submission that makes sense in itself.

    Attributes:
        group_id: the caller's, or a new one.
        function_ids: canonical, each once.
        shared: what all its tasks have in common, as `submissions` keeps it.
        response: the answer if it is accepted.
    """

    caller: Identity
    endpoint_id: str
    group_id: str
    create_queue: bool
    function_ids: Sequence[str]
    calls: Sequence[Call]
    resource_specification: Mapping[str, Any] | None
    result_serializers: Sequence[str]
    python_version: str | None
    user_runtime: Mapping[str, Any] | None
    user_endpoint_config: Mapping[str, Any] | None
    idempotency_key: str | None
    response: SubmitResponse


def plan_submission(
    request: SubmitRequest,
    endpoint_id: str,
    caller: Identity,
    *,
    payload_limit_bytes: int,
    batch_limit: int,
    idempotency_key: str | None = None,
) -> SubmissionPlan:
    """Check a request as far as that is possible without the store, and give its tasks their ids.

    Raises:
        InvalidRequest: the message names the member.
        PayloadTooLarge: one task's packed arguments exceed `payload_limit_bytes`.
    """
    count = sum(map(len, request.tasks.values()))
    if not 0 < count <= batch_limit:
        raise InvalidRequest(f"member 'tasks' must hold 1 to {batch_limit} tasks, this one holds {count}.")
    group_id = (
        new_id() if request.task_group_id is None else canonical_uuid(request.task_group_id, "member 'task_group_id'")
    )
    functions = {key: canonical_uuid(key, "a key of member 'tasks'") for key in request.tasks}
    if len(set(functions.values())) != len(functions):
        raise InvalidRequest("member 'tasks' names one function twice, in different spellings.")
    ids = iter(new_ids(count))
    calls: list[Call] = []
    answer: dict[str, list[str]] = {}
    for key, payloads in request.tasks.items():
        function_id = functions[key]
        for at, payload in enumerate(payloads):
            _check_payload(payload, key, at, payload_limit_bytes)
        of_function = [Call(next(ids), function_id, payload) for payload in payloads]
        calls += of_function
        answer[key] = [call.task_id for call in of_function]
    return SubmissionPlan(
        caller=caller,
        endpoint_id=endpoint_id,
        group_id=group_id,
        create_queue=request.create_queue,
        function_ids=list(functions.values()),
        calls=calls,
        resource_specification=_resources(request.resource_specification),
        result_serializers=_serializers(request.result_serializers),
        python_version=_python_version(request.user_runtime),
        user_runtime=request.user_runtime,
        user_endpoint_config=request.user_endpoint_config or None,
        idempotency_key=idempotency_key,
        response=SubmitResponse(request_id=new_id(), task_group_id=group_id, endpoint_id=endpoint_id, tasks=answer),
    )


def check_submission(
    plan: SubmissionPlan, endpoint: Endpoint | None, functions: Mapping[str, Function], group: Group | None
) -> Endpoint:
    """Check a plan against what it refers to. Returns the endpoint.

    Args:
        functions: by id; those that exist, deleted ones included.
        group: None if there is none of this id yet: it will be made.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: the endpoint.
        FunctionNotFound, FunctionNotPermitted: one of the functions.
        Forbidden: the group is somebody else's.
        InvalidRequest: something that this kind of endpoint does not take.
    """
    endpoint = check_use(endpoint, plan.endpoint_id, plan.caller)
    if endpoint.direct and plan.user_endpoint_config:
        raise InvalidRequest(
            f"member 'user_endpoint_config' must be empty: endpoint {endpoint.id} runs with the fixed configuration "
            "of its config.yaml."
        )
    if not endpoint.direct:
        check_options(plan.user_endpoint_config)
    for function_id in plan.function_ids:
        function = functions.get(function_id)
        if function is None or function.is_deleted:
            raise FunctionNotFound(
                f"There is no function {function_id}. Was it deleted, or registered at another service?",
                {"function_id": function_id},
            )
        if not is_usable(function, plan.caller):
            raise FunctionNotPermitted(why_not_usable(function, plan.caller), {"function_id": function_id})
        if function.ha_endpoint_id not in (None, endpoint.id):
            raise FunctionNotPermitted(
                f"Function {function_id} is for high assurance and runs only at endpoint {function.ha_endpoint_id}, "
                f"not at {endpoint.id}.",
                {"function_id": function_id},
            )
        if endpoint.allowed_functions is not None and function_id not in endpoint.allowed_functions:
            raise FunctionNotPermitted(
                f"Endpoint {endpoint.id} runs only the functions on its list, and {function_id} is not one of them.",
                {"function_id": function_id},
            )
    if group is not None and group.owner_id != plan.caller.id:
        raise Forbidden(f"Task group {group.id} belongs to somebody else.")
    return endpoint


def ha_warning(endpoint: Endpoint, functions: Mapping[str, Function]) -> str | None:
    """What people should know of a submission that is accepted; None: nothing."""
    if not endpoint.high_assurance:
        return None
    ordinary = sorted(function.id for function in functions.values() if function.ha_endpoint_id is None)
    if not ordinary:
        return None
    return (
        f"Endpoint {endpoint.id} is one for high assurance, and function {ordinary[0]} is an ordinary one: it can run "
        f"elsewhere, and is kept until somebody deletes it. Register it with ha_endpoint_id={endpoint.id!r} if it "
        "contains anything to protect."
    )


def check_replay(plan: SubmissionPlan, earlier: SubmitResponse) -> None:
    """Whether the answer stored under a key can be the answer to this request. Raises Conflict."""
    shapes = [
        (response.endpoint_id, {key: len(ids) for key, ids in response.tasks.items()})
        for response in (plan.response, earlier)
    ]
    if shapes[0] != shapes[1]:
        raise Conflict(
            f"Idempotency key {plan.idempotency_key!r} was used for another submission before. Use a new key for each."
        )


def check_task(owner_id: str | None, task_id: str, caller: Identity) -> None:
    """Whether the caller may see the task. Others' tasks do not exist. Raises TaskNotFound."""
    if owner_id not in caller.linked:
        raise TaskNotFound(
            f"There is no task {task_id} of yours at this service. Tasks are forgotten two weeks after they ended."
        )


def idempotency_key(header: str | None) -> str | None:
    """The key of a request. Raises InvalidRequest if it is too long or empty."""
    if header is not None and not (0 < len(header) <= 255 and header.isprintable()):
        raise InvalidRequest("The header Idempotency-Key must have 1 to 255 printable characters.")
    return header


def _check_payload(payload: str, function_key: str, at: int, limit_bytes: int) -> None:
    where = f"member 'tasks[{function_key}][{at}]'"
    size_bytes = size_in_bytes(payload)
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"{where}: the packed arguments have {size_bytes} bytes, and the limit is {limit_bytes}. "
            "Pass large data by reference: a path that the endpoint can read, or a URL."
        )
    try:
        count = len(unpack_buffers(payload))
    except FramingError as exc:
        raise InvalidRequest(f"{where} is not two length-framed buffers: {exc}.") from exc
    if count != 2:
        raise InvalidRequest(f"{where} must hold two framed buffers (arguments, keyword arguments), not {count}.")
    if "\0" in payload:
        raise InvalidRequest(f"{where} contains the character NUL.")


def _resources(specification: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    # It travels in a header, and a header must fit into one AMQP frame.
    if specification and len(encode_text(specification)) > _RESOURCES_LIMIT_CHARS:
        raise InvalidRequest(f"member 'resource_specification' exceeds {_RESOURCES_LIMIT_CHARS} characters of JSON.")
    return specification or None


def _serializers(names: Sequence[str] | None) -> Sequence[str]:
    names = names or ()
    if len(names) > _SERIALIZERS_LIMIT or any(not name or len(name) > _NAME_LIMIT_CHARS for name in names):
        raise InvalidRequest(
            f"member 'result_serializers' may hold at most {_SERIALIZERS_LIMIT} import paths, none of them empty."
        )
    return names


def _python_version(runtime: Mapping[str, Any] | None) -> str | None:
    """The submitter's `major.minor`, from either place where clients put it."""
    if runtime is None:
        return None
    python = runtime.get("python")
    text = python.get("version") if isinstance(python, Mapping) else runtime.get("python_version")
    minor = python_minor(text) if isinstance(text, str) else None
    return minor if minor is not None and len(minor) <= 16 else None
