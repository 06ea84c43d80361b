"""`Batch`: many calls for one request of `Client.batch_run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from farcall.client.rest import uuid_text
from farcall.sdk.calls import json_object, pack_arguments
from farcall.sdk.runtime import user_runtime
from farcall.serialize import ComputeSerializer, StrategyLike, import_path_of
from farcall.wire.rest import SubmitRequest, to_document

__all__ = ["Batch"]


class Batch:
    """Calls of registered functions on one endpoint. Made by `Client.create_batch`; `len()` counts its calls.

    Args:
        task_group_id: group of the tasks; None lets the service make one.
        resource_specification: nodes and ranks that each call needs (`num_nodes`, `ranks_per_node`, `num_ranks`,
            `launcher_options`), on endpoints whose engine uses them.
        user_endpoint_config: variables of the endpoint's template.
        request_queue: have the results streamed to a queue as well, for an Executor.
        serializer: writes the arguments.
        user_runtime: what is told about this Python; found out if None.
        result_serializers: formats that results may have, tried in order by the worker.

    Raises:
        ValueError: an id is no UUID, a result serializer is none, or JSON cannot carry what should be an object of it.
        TypeError: that is no mapping.
    """

    def __init__(
        self,
        task_group_id: str | UUID | None = None,
        resource_specification: Mapping[str, Any] | None = None,
        user_endpoint_config: Mapping[str, Any] | None = None,
        request_queue: bool = False,
        serializer: ComputeSerializer | None = None,
        user_runtime: Mapping[str, Any] | None = None,
        result_serializers: Iterable[StrategyLike] | None = None,
    ) -> None:
        self.task_group_id = None if task_group_id is None else uuid_text(task_group_id, "task_group_id")
        self.resource_specification = json_object(resource_specification, "resource_specification")
        self.user_endpoint_config = json_object(user_endpoint_config, "user_endpoint_config")
        self.request_queue = request_queue
        self.user_runtime = user_runtime
        self.result_serializers = [import_path_of(entry) for entry in result_serializers or ()]
        self.tasks: dict[str, list[str]] = {}
        self._serializer = serializer or ComputeSerializer()

    def add(
        self,
        function_id: str | UUID,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one call.

        Raises:
            TypeError: `args` is a text or no sequence, or `kwargs` no mapping.
            ValueError: `function_id` is no UUID.
            SerializationError, PayloadTooLarge: the arguments cannot be sent.
        """
        if isinstance(args, (str, bytes)) or (args is not None and not isinstance(args, Iterable)):
            raise TypeError(f"args must be a list or tuple of arguments, got {args!r}; one argument is ({args!r},)")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"kwargs must be a mapping of names to arguments, got {type(kwargs).__name__}")
        key = uuid_text(function_id, "function_id")
        payload = pack_arguments(self._serializer, tuple(args or ()), kwargs or {}, function=f"function {key}")
        self.tasks.setdefault(key, []).append(payload)

    def __len__(self) -> int:
        return sum(map(len, self.tasks.values()))

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} calls of {len(self.tasks)} functions>"

    def request(self) -> SubmitRequest:
        """What is sent to the service."""
        return SubmitRequest(
            tasks=self.tasks,
            create_queue=self.request_queue,
            task_group_id=self.task_group_id,
            resource_specification=dict(self.resource_specification) if self.resource_specification else None,
            user_endpoint_config=dict(self.user_endpoint_config) if self.user_endpoint_config else None,
            user_runtime=dict(self.user_runtime or user_runtime()),
            result_serializers=self.result_serializers or None,
        )

    def prepare(self) -> dict[str, Any]:
        """The request as a JSON document."""
        return to_document(self.request())
