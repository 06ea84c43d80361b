"""The SQL of all parts, on a real SQLite file and a real PostgreSQL: what goes in comes out, and the indexes serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select

from farcall.service.accounts import store as accounts
from farcall.service.accounts.rules import new_token, token_hash
from farcall.service.db import tables
from farcall.service.db.engine import make_engine
from farcall.service.db.migrations import migrate
from farcall.service.endpoints import rules as endpoint_rules
from farcall.service.endpoints import store as endpoints
from farcall.service.functions import store as functions
from farcall.service.functions.rules import NewFunction
from farcall.service.ids import new_id, new_ids
from farcall.service.relay import store as relay
from farcall.service.relay.moves import Move
from farcall.service.relay.results import ParsedResult, Reason
from farcall.service.tasks import listing_store
from farcall.service.tasks import rules as task_rules
from farcall.service.tasks import store as tasks
from farcall.service.tasks.listing_rules import TaskQuery
from farcall.wire.errors import Conflict, FunctionNotFound, TaskGroupNotFound, TaskNotFound
from farcall.wire.framing import pack_buffers
from farcall.wire.messages import unpack_message
from farcall.wire.rest import EndpointRegistration, SubmitRequest
from farcall.wire.states import TaskState
from farcall.wire.topology import BrokerUser, UserKind

PAYLOAD = pack_buffers(["11\n[7]", "11\n{}"])
CODE = pack_buffers(["st\nf:code"])
NOW = 1_700_000_000.0
DAY = 86400.0


class World:
    """A database with two people, one function and one endpoint."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.ada = accounts.ensure_identity(conn, "ada", is_admin=True, now=NOW)
        self.bob = accounts.ensure_identity(conn, "bob", is_admin=False, now=NOW)
        self.function_id, self.endpoint_id = new_ids(2)
        new = NewFunction(name="f", code=CODE, description=None, metadata={"a": 1}, public=False, group_id=None)
        functions.add_function(conn, self.function_id, self.ada, new, NOW)
        self.plan = endpoint_rules.plan_registration(EndpointRegistration(endpoint_name="here", direct=True))
        endpoints.add_endpoint(conn, self.endpoint_id, self.ada, self.plan, "127.0.0.1", NOW)

    def submit(self, count: int = 1, now: float = NOW, **request: Any) -> tasks.Submitted:
        key = request.pop("key", None)
        plan = task_rules.plan_submission(
            SubmitRequest(**{"tasks": {self.function_id: [PAYLOAD] * count}, **request}),
            self.endpoint_id,
            self.ada,
            payload_limit_bytes=10_000,
            batch_limit=10_000,
            idempotency_key=key,
        )
        return tasks.submit(self.conn, plan, (), now)

    def task_ids(self, count: int = 1, **request: Any) -> list[str]:
        return self.submit(count, **request).response.tasks[self.function_id]

    def result(self, task_id: str, **changes: Any) -> ParsedResult:
        members = {"sender": f"{self.endpoint_id}.results", "body": b"", "task_id": task_id, "data": "value"}
        return ParsedResult(**{**members, **changes})

    def finish(self, *task_ids: str, now: float = NOW) -> relay.Recorded:
        return relay.record_results(self.conn, [self.result(each) for each in task_ids], now)

    def state(self, task_id: str) -> TaskState:
        return tasks.read_tasks(self.conn, [task_id], [self.ada.id])[task_id].state

    def count(self, table: Any) -> int:
        return int(self.conn.execute(select(func.count()).select_from(table)).scalar_one())

    def page(self, after: int = 0, count: int = 100, size: int = 10**9) -> tuple[list[str], bool]:
        found, _, is_last = relay.read_task_page(self.conn, self.endpoint_id, after, count, size)
        return [each.id for each in found], is_last


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    engine = make_engine(store_url)
    migrate(engine)
    with engine.begin() as conn:
        yield World(conn)
    engine.dispose()


# --- accounts


def test_an_identity_is_made_once_and_can_become_administrator(world: World) -> None:
    again = accounts.ensure_identity(world.conn, "bob", is_admin=True, now=NOW)
    assert (again.id, again.is_admin) == (world.bob.id, True)
    assert accounts.ensure_identity(world.conn, "bob", is_admin=False, now=NOW).is_admin


def test_a_token_is_found_by_its_hash_until_it_is_revoked(world: World) -> None:
    key = token_hash(new_token())
    assert accounts.find_token(world.conn, key) is None
    accounts.add_token(world.conn, key, world.ada.id, label="x", now=NOW)
    found = accounts.find_token(world.conn, key)
    assert found is not None
    assert (found[0], found[1].revoked_at) == (world.ada, None)
    assert accounts.revoke_token(world.conn, key, NOW + 1)
    assert not accounts.revoke_token(world.conn, key, NOW + 2)
    revoked = accounts.find_token(world.conn, key)
    assert revoked is not None
    assert revoked[1].revoked_at == NOW + 1


def test_the_secret_is_made_once(world: World) -> None:
    assert accounts.ensure_secret(world.conn) == accounts.ensure_secret(world.conn)


def test_generations_grow_when_a_credential_is_revoked(world: World) -> None:
    sdk = BrokerUser(kind=UserKind.SDK, id=world.ada.id, generation=1)
    assert accounts.broker_generation(world.conn, sdk) == 1
    assert accounts.revoke_broker_credential(world.conn, world.ada.id) == 2
    assert accounts.broker_generation(world.conn, sdk) == 2
    agent = BrokerUser(kind=UserKind.ENDPOINT, id=world.endpoint_id, generation=1)
    endpoints.register_again(world.conn, world.endpoint_id, world.ada, world.plan, None, NOW)
    assert accounts.broker_generation(world.conn, agent) == 2
    endpoints.lock_endpoint(world.conn, world.endpoint_id, world.ada, NOW, 5.0)
    assert accounts.broker_generation(world.conn, agent) == 3
    endpoints.delete_endpoint(world.conn, world.endpoint_id, world.ada, NOW)
    assert accounts.broker_generation(world.conn, agent) is None


# --- endpoints


def test_a_registration_replaces_all_that_was_told_before(world: World) -> None:
    full = EndpointRegistration(
        endpoint_name="here",
        direct=True,
        display_name="Here",
        admins=[world.bob.id],
        allowed_functions=[world.function_id],
        public=True,
        metadata={"hostname": "h"},
    )
    register = endpoints.register_again
    register(world.conn, world.endpoint_id, world.ada, endpoint_rules.plan_registration(full), "::1", NOW)
    stored = endpoints.read_endpoint(world.conn, world.endpoint_id)
    assert stored is not None
    assert stored.rights.admins == {world.bob.id}
    assert stored.rights.allowed_functions == {world.function_id}
    assert (stored.display_name, stored.metadata, stored.ip_address) == ("Here", {"hostname": "h"}, "::1")
    register(world.conn, world.endpoint_id, world.ada, world.plan, None, NOW)
    stored = endpoints.read_endpoint(world.conn, world.endpoint_id)
    assert stored is not None
    assert stored.rights.admins == frozenset()
    assert stored.rights.allowed_functions is None
    assert (stored.display_name, stored.metadata, stored.ip_address) == (None, {}, None)


def test_lists_show_ones_own_or_all_that_one_may_see(world: World) -> None:
    def add(**told: Any) -> str:
        endpoint_id = new_id()
        plan = endpoint_rules.plan_registration(EndpointRegistration(endpoint_name="e", direct=True, **told))
        endpoints.add_endpoint(world.conn, endpoint_id, world.bob, plan, None, NOW)
        return endpoint_id

    public, shared, _ = add(public=True), add(admins=[world.ada.id]), add()

    def listed(own_only: bool) -> set[str]:
        return {row["id"] for row in endpoints.list_endpoints(world.conn, world.ada, own_only)}

    assert listed(True) == {world.endpoint_id}
    assert listed(False) == {world.endpoint_id, public, shared}
    endpoints.delete_endpoint(world.conn, public, world.bob, NOW)
    assert listed(False) == {world.endpoint_id, shared}


def test_reports_are_kept(world: World) -> None:
    endpoints.write_reports(world.conn, [(world.endpoint_id, '{"total_workers":2}', NOW)])
    stored = endpoints.read_endpoint(world.conn, world.endpoint_id)
    assert stored is not None
    assert (stored.last_report, stored.last_seen_at) == ({"total_workers": 2}, NOW)


def test_a_report_that_comes_late_to_be_written_does_not_replace_a_newer_one(world: World) -> None:
    endpoints.write_reports(world.conn, [(world.endpoint_id, '{"total_workers":2}', NOW)])
    endpoints.write_reports(world.conn, [(world.endpoint_id, '{"total_workers":1}', NOW - 1)])
    stored = endpoints.read_endpoint(world.conn, world.endpoint_id)
    assert stored is not None
    assert stored.last_report == {"total_workers": 2}


def test_who_is_attached_can_be_read(world: World) -> None:
    assert endpoints.read_attached(world.conn) == []
    endpoints.write_attached(world.conn, {world.endpoint_id: NOW, "nobody": None})
    assert endpoints.read_attached(world.conn) == [(world.endpoint_id, NOW, None, None)]
    endpoints.write_reports(world.conn, [(world.endpoint_id, '{"active":true}', NOW + 1)])
    assert endpoints.read_attached(world.conn) == [(world.endpoint_id, NOW, {"active": True}, NOW + 1)]
    endpoints.write_attached(world.conn, {world.endpoint_id: None})
    assert endpoints.read_attached(world.conn) == []
    assert world.endpoint_id in list(endpoints.read_endpoint_queues(world.conn))


# --- submission


def test_a_submission_is_stored_with_everything_that_its_tasks_need(world: World) -> None:
    submitted = world.submit(
        70,
        resource_specification={"num_nodes": 2},
        result_serializers=["a.B"],
        user_runtime={"python": {"version": "3.11.7"}},
    )
    found, shared, is_last = relay.read_task_page(world.conn, world.endpoint_id, 0, 100, 10**9)
    assert is_last
    assert [each.id for each in found] == submitted.response.tasks[world.function_id]
    assert [each.seq for each in found] == list(range(found[0].seq, found[0].seq + 70))
    assert {each.payload for each in found} == {PAYLOAD}
    headers = shared[found[0].submission_seq]
    assert (headers.resource_specification_json, headers.result_serializers_json, headers.python_version) == (
        '{"num_nodes":2}',
        '["a.B"]',
        "3.11",
    )
    assert submitted.tasks == found
    assert submitted.codes == {world.function_id: CODE}


def test_a_refused_submission_leaves_nothing(world: World) -> None:
    functions.delete_function(world.conn, world.function_id, world.ada, NOW)
    with pytest.raises(FunctionNotFound):
        world.submit()
    assert world.count(tables.tasks) == world.count(tables.task_groups) == world.count(tables.submissions) == 0


def test_the_same_key_gets_the_same_answer_and_no_second_task(world: World) -> None:
    first, second = world.submit(3, key="k"), world.submit(3, key="k")
    assert second.response == first.response
    assert second.tasks == ()
    assert world.count(tables.tasks) == 3
    with pytest.raises(Conflict):
        world.submit(2, key="k")


def test_keys_belong_to_their_identity(world: World) -> None:
    world.submit(key="k")
    rows = world.conn.execute(tables.idempotency_keys.select()).all()
    assert [(row.identity_id, row.key) for row in rows] == [(world.ada.id, "k")]


def test_a_group_keeps_its_tasks_in_order_and_gets_a_queue_when_one_is_asked_for(world: World) -> None:
    first = world.submit(2)
    group_id = first.response.task_group_id
    group, _ = tasks.read_group(world.conn, group_id, world.ada)
    assert not group.has_queue
    second = world.submit(1, task_group_id=group_id, create_queue=True)
    group, listed = tasks.read_group(world.conn, group_id, world.ada)
    assert group.has_queue
    expected = first.response.tasks[world.function_id] + second.response.tasks[world.function_id]
    assert [task.id for task in listed] == expected
    with pytest.raises(TaskGroupNotFound):
        tasks.read_group(world.conn, group_id, world.bob)


def test_an_unknown_group_id_becomes_a_group_of_that_id(world: World) -> None:
    group_id = new_id()
    assert world.submit(task_group_id=group_id).response.task_group_id == group_id
    assert tasks.read_group(world.conn, group_id, world.ada)[0].owner_id == world.ada.id


# --- pages


def test_pages_follow_each_other_without_gap_or_repetition(world: World) -> None:
    ids = world.task_ids(10)
    seen: list[str] = []
    after, is_last = 0, False
    while not is_last:
        found, _, is_last = relay.read_task_page(world.conn, world.endpoint_id, after, 3, 10**9)
        seen += [each.id for each in found]
        after = found[-1].seq if found else after
    assert seen == ids


def test_a_page_holds_what_fits_and_at_least_one(world: World) -> None:
    ids = world.task_ids(5)
    size = len(CODE) + len(PAYLOAD)
    assert world.page(size=2 * size) == (ids[:2], False)
    assert world.page(size=1) == (ids[:1], False)
    assert world.page(size=5 * size) == (ids, True)


def test_tasks_that_have_ended_are_on_no_page(world: World) -> None:
    ids = world.task_ids(3)
    world.finish(ids[1])
    assert world.page() == ([ids[0], ids[2]], True)


def test_the_page_of_an_endpoint_is_found_by_its_index(world: World) -> None:
    if world.conn.dialect.name != "sqlite":
        pytest.skip("PostgreSQL plans by its statistics, which an empty table has not")
    for prepared, values in (
        (relay._TASK_SIZES, {"endpoint": "e", "after": 0, "count": 9}),
        (relay._TASK_PAGE, {"endpoint": "e", "after": 0, "last": 9}),
    ):
        prepared.all(world.conn, **values)
        compiled = prepared._compiled["sqlite"]
        explain = "EXPLAIN QUERY PLAN " + compiled.text
        rows = world.conn.exec_driver_sql(explain, tuple(compiled.parameters(values))).all()
        plan = " ".join(row[-1] for row in rows)
        assert "ix_tasks_open_endpoint_id_seq" in plan
        assert "TEMP B-TREE" not in plan


def test_a_listing_begins_with_the_submissions_of_its_owner(world: World) -> None:
    """Whatever is filtered: beginning with the tasks, for their order, would look at everybody's."""
    world.submit(3)
    engine, seen = world.conn.engine, []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if "JOIN" in statement and "submissions" in statement:
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    endpoint_id = world.endpoint_id
    for more in ({}, {"states": ("failed",)}, {"endpoint_id": endpoint_id}, {"function_id": world.function_id}):
        listing_store.read_step(world.conn, TaskQuery(owner_ids=frozenset([world.ada.id]), **more), None, 50)
    event.remove(engine, "before_cursor_execute", note)
    assert len(seen) == 4
    if world.conn.dialect.name == "postgresql":
        assert all("LATERAL" in statement for statement, _ in seen)
        return
    for statement, parameters in seen:
        rows = world.conn.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters).all()
        plan = [row[-1] for row in rows if row[-1].startswith(("SEARCH", "SCAN"))]
        assert plan[0].startswith("SEARCH submissions USING INDEX ix_submissions_owner_id")
        assert plan[1].startswith("SEARCH tasks USING INTEGER PRIMARY KEY")


# --- results


def test_the_first_result_ends_a_task_and_the_second_changes_nothing(world: World) -> None:
    (task_id,) = world.task_ids()
    first = relay.record_results(
        world.conn, [world.result(task_id, details_json='{"os":"L"}', transitions_json='{"execution-start":1.5}')], NOW
    )
    second = relay.record_results(world.conn, [world.result(task_id, data="other")], NOW + 1)
    assert [each.task.id for each in first.ended] == [task_id]
    assert (second.ended, [each.reason for each in second.dropped]) == ([], [Reason.DUPLICATE])
    task = tasks.read_tasks(world.conn, [task_id], [world.ada.id])[task_id]
    stored = tasks.read_results(world.conn, [task.seq])[task.seq]
    assert (task.state, task.completed_at, stored.data) == (TaskState.SUCCESS, NOW, "value")
    assert (stored.details, stored.transitions) == ({"os": "L"}, {"execution-start": 1.5})
    assert world.count(tables.task_payloads) == 0


def test_a_batch_of_results_is_recorded_as_one(world: World) -> None:
    ids = world.task_ids(300)
    recorded = world.finish(*ids)
    assert [each.result_seq for each in recorded.ended] == list(range(1, 301))
    assert world.page() == ([], True)
    assert tasks.count_by_state(world.conn) == {"success": 300}


def test_anothers_endpoint_cannot_end_a_task(world: World) -> None:
    (task_id,) = world.task_ids()
    foreign = world.result(task_id, sender=f"{new_id()}.results")
    assert [each.reason for each in relay.record_results(world.conn, [foreign], NOW).dropped] == [Reason.FOREIGN]
    assert world.state(task_id) is TaskState.RECEIVED


def test_a_group_reads_the_results_that_its_client_has_not_acknowledged(world: World) -> None:
    submitted = world.submit(4)
    ids, group_id = submitted.response.tasks[world.function_id], submitted.response.task_group_id
    world.finish(ids[2], ids[0])
    failed = world.result(ids[1], data="trace", error_code="E", error_message="why", details_json='{"os":"L"}')
    relay.record_results(world.conn, [failed], NOW)

    def page(after: int = 0, count: int = 10) -> tuple[list[str], bool]:
        found, is_last = relay.read_result_page(world.conn, group_id, world.ada.id, after, count, 10**9)
        return [each.task_id for each in found], is_last

    assert page() == ([ids[2], ids[0], ids[1]], True)
    assert page(count=2) == ([ids[2], ids[0]], False)
    relay.write_delivered(world.conn, {group_id: 2})
    relay.write_delivered(world.conn, {group_id: 1})
    assert page() == ([ids[1]], True)
    found, _ = relay.read_result_page(world.conn, group_id, world.ada.id, 2, 10, 10**9)
    message: Any = unpack_message(found[0].body)
    assert (message.task_id, message.data, message.error_details.code, message.details) == (
        ids[1],
        "trace",
        "E",
        {"os": "L"},
    )
    assert relay.read_result_page(world.conn, group_id, world.bob.id, 0, 10, 10**9) == ([], True)


def test_cancelling_ends_a_task_once_and_only_for_its_owner(world: World) -> None:
    (task_id,) = world.task_ids()
    with pytest.raises(TaskNotFound):
        tasks.cancel_task(world.conn, task_id, world.bob, "TASK_CANCELLED", "no", NOW)
    state, recorded = tasks.cancel_task(world.conn, task_id, world.ada, "TASK_CANCELLED", "no", NOW)
    assert (state, len(recorded.ended)) == (TaskState.CANCELLED, 1)
    state, recorded = tasks.cancel_task(world.conn, task_id, world.ada, "TASK_CANCELLED", "no", NOW)
    assert (state, recorded.ended) == (TaskState.CANCELLED, [])
    (done,) = world.task_ids()
    world.finish(done)
    state, recorded = tasks.cancel_task(world.conn, done, world.ada, "TASK_CANCELLED", "no", NOW)
    assert (state, recorded.ended) == (TaskState.SUCCESS, [])


def test_reported_moves_follow_the_transition_table(world: World) -> None:
    first, second = world.task_ids(2)
    world.finish(second)
    other, running = new_id(), Move(TaskState.RUNNING, NOW + 1, NOW + 2)
    relay.move_tasks(
        world.conn,
        {
            world.endpoint_id: {first: running, second: running, new_id(): running},
            other: {first: Move(TaskState.WAITING_FOR_NODES)},
        },
    )
    assert (world.state(first), world.state(second)) == (TaskState.RUNNING, TaskState.SUCCESS)
    relay.move_tasks(world.conn, {world.endpoint_id: {first: Move(TaskState.WAITING_FOR_NODES, NOW + 3)}})
    assert world.state(first) is TaskState.WAITING_FOR_NODES
    times = select(tables.tasks.c.taken_at, tables.tasks.c.started_at).where(tables.tasks.c.id == first)
    assert world.conn.execute(times).one() == (NOW + 3, NOW + 2)


def test_the_open_tasks_of_a_deleted_endpoint_end_in_steps(world: World) -> None:
    ids = world.task_ids(5)
    world.finish(ids[0])
    endpoints.delete_endpoint(world.conn, world.endpoint_id, world.ada, NOW)
    assert relay.deleted_endpoints_with_open_tasks(world.conn) == [world.endpoint_id]

    def step() -> list[str]:
        text = "Task {task_id} is gone."
        recorded = relay.end_tasks_of_endpoint(world.conn, world.endpoint_id, 3, "ENDPOINT_DELETED", text, NOW)
        return [each.task.id for each in recorded.ended]

    assert (step(), step(), step()) == (ids[1:4], ids[4:], [])
    assert relay.deleted_endpoints_with_open_tasks(world.conn) == []
    stored = tasks.read_results(world.conn, [2])[2]
    assert (stored.error_code, stored.data) == ("ENDPOINT_DELETED", f"Task {ids[1]} is gone.")


# --- sweeping


def sweep(world: World, now: float, count: int = 3) -> tuple[list[str], int]:
    """All steps of a sweep; which tasks ended, how many were forgotten."""
    ended: list[str] = []
    deleted = 0
    at: int | None = 0
    while at is not None:
        step = relay.sweep_tasks(world.conn, at, count, now, 14 * DAY, 14 * DAY, "TASK_EXPIRED", "too old")
        ended += [each.task.id for each in step.ended]
        deleted += step.deleted
        at = step.next_seq
    return ended, deleted


def test_tasks_past_their_lifetime_fail_and_later_are_forgotten(world: World) -> None:
    old, young = world.task_ids(4), world.task_ids(2, now=NOW + 10 * DAY)
    world.finish(old[0])
    assert sweep(world, NOW + 13 * DAY) == ([], 0)
    later = NOW + 15 * DAY
    assert sweep(world, later) == (old[1:], 1)
    assert [world.state(each) for each in old[1:]] == [TaskState.FAILED] * 3
    assert world.page() == (young, True)
    assert sweep(world, later) == ([], 0)
    assert sweep(world, later + 15 * DAY) == (young, 3)
    assert world.count(tables.submissions) == 1
    sweep(world, later + 30 * DAY)
    everything = (tables.tasks, tables.task_results, tables.task_payloads, tables.submissions)
    assert [world.count(table) for table in everything] == [0, 0, 0, 0]


def test_a_result_is_kept_from_its_completion_on(world: World) -> None:
    (task_id,) = world.task_ids()
    world.finish(task_id, now=NOW + 13 * DAY)
    assert sweep(world, NOW + 20 * DAY) == ([], 0)
    assert sweep(world, NOW + 28 * DAY) == ([], 1)


def test_groups_without_tasks_and_old_keys_are_forgotten(world: World) -> None:
    kept = world.submit(key="new", now=NOW + 20 * DAY).response.task_group_id
    with_task = world.submit(key="old").response.task_group_id
    world.conn.execute(
        tables.task_groups.insert().values(id=new_id(), owner_id="x", has_queue=True, delivered_seq=0, created_at=NOW)
    )
    assert relay.sweep_groups(world.conn, 10, NOW + 14 * DAY) == 1
    left = world.conn.execute(select(tables.task_groups.c.id)).scalars().all()
    assert set(left) == {kept, with_task}
    assert relay.sweep_keys(world.conn, NOW + DAY) == 1
    assert world.conn.execute(select(tables.idempotency_keys.c.key)).scalars().all() == ["new"]
