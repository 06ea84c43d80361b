"""What a manager decides, case by case. Whatever happens in any order: `test_core_promises`."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from farcall.endpoint.manager.commands import StartRequest, StopUserEndpoint, Unusable
from farcall.endpoint.manager.core import QUESTION_GAP_S, STOPPED_MEMORY_S, ManagerCore, ManagerPolicy
from farcall.endpoint.manager.events import (
    Ask,
    CleanUp,
    Command,
    CredentialAnswered,
    Ended,
    Event,
    Finish,
    Launch,
    Launched,
    LaunchFailed,
    LineEnded,
    Notice,
    Person,
    Received,
    Record,
    Resolve,
    Resolved,
    ResolveRefused,
    Said,
    Send,
    Signal,
    StopManager,
    Tick,
)
from farcall.endpoint.manager.line import (
    AuditLine,
    CredentialCounts,
    CredentialRefused,
    Credentials,
    Failed,
    Rendered,
    State,
    Stop,
)

ME = "aaaaaaaa-0000-4000-8000-000000000001"
NOW_UNIX_S = 1_000_000.0


def uep(number: int = 1) -> str:
    return f"eeeeeeee-0000-4000-8000-{number:012}"


def request(number: int = 1, *, generation: int = 1, by: str = ME, sent_s: float = 0.0) -> StartRequest:
    return StartRequest(
        name=f"uep.m.{uep(number)}",
        user_endpoint_id=uep(number),
        queues={"generation": generation},
        options={},
        runtime={},
        identity_id=by,
        username="a@b.c",
        identity_set=[{"sub": by, "id": by}],
        sent_unix_s=NOW_UNIX_S + sent_s,
    )


class World:
    """A core, its clock, and the last commands."""

    def __init__(self, **policy: Any) -> None:
        self.core = ManagerCore(ManagerPolicy(**{"own_identities": None, **policy}))
        self.now_s = 100.0

    def handle(self, event: Event) -> list[Command]:
        return self.core.handle(event, now_s=self.now_s)

    def receive(self, *args: Any, **kwargs: Any) -> list[Command]:
        return self.handle(Received(command=request(*args, **kwargs), at_unix_s=NOW_UNIX_S))

    def resolve(self, number: int = 1, *, key: str = "alice") -> list[Command]:
        user = self.core.user_endpoints[uep(number)]
        person = Person(key=key, local_user=key, account=key, uid=1001)
        return self.handle(Resolved(user_endpoint_id=uep(number), attempt=user.attempt, person=person))

    def start(self, number: int = 1, *, is_online: bool = True, key: str = "alice") -> None:
        self.receive(number)
        self.resolve(number, key=key)
        self.handle(Launched(user_endpoint_id=uep(number), pid=4000 + number))
        if is_online:
            self.say(State(phase="online"), number)

    def say(self, message: Any, number: int = 1) -> list[Command]:
        return self.handle(Said(user_endpoint_id=uep(number), message=message))

    def end(self, status: int, number: int = 1) -> list[Command]:
        return [
            each
            for each in self.handle(Ended(user_endpoint_id=uep(number), status=status))
            if not isinstance(each, CleanUp)
        ]


def only_notice(commands: list[Command]) -> Notice:
    (notice,) = commands
    assert isinstance(notice, Notice)
    return notice


def test_a_start_request_is_resolved_then_launched() -> None:
    world = World()
    assert world.receive() == [Resolve(request=request(), attempt=1)]
    (launch,) = world.resolve()
    assert isinstance(launch, Launch)
    assert (launch.request, launch.person.local_user) == (request(), "alice")


def test_one_that_comes_while_whom_it_runs_as_is_found_out_only_renews_the_login() -> None:
    world = World()
    world.receive()
    assert world.receive(generation=2) == []
    (launch,) = world.resolve()
    assert isinstance(launch, Launch)
    assert launch.request.queues == {"generation": 2}


def test_one_for_what_runs_hands_its_newer_login_on() -> None:
    world = World()
    world.start()
    (sent,) = world.receive(generation=2)
    assert sent == Send(user_endpoint_id=uep(), message=Credentials(queues={"generation": 2}))


@pytest.mark.parametrize(("waited_s", "is_again"), [(29.0, True), (31.0, False)])
def test_one_that_met_a_user_endpoint_just_ending_is_not_lost(waited_s: float, is_again: bool) -> None:
    world = World(grace_s=30.0)
    world.start()
    world.receive(generation=2)
    world.now_s += waited_s
    commands = world.end(0)
    assert commands == ([Resolve(request=request(generation=2), attempt=2)] if is_again else [])


def test_one_that_came_while_it_was_ending_is_kept_however_long_that_takes() -> None:
    world = World(grace_s=30.0)
    world.start()
    world.say(State(phase="stopping"))
    world.receive(generation=2)
    world.now_s += 300.0
    assert world.end(0) == [Resolve(request=request(generation=2), attempt=2)]


def test_an_idle_end_is_nobodys_business() -> None:
    world = World()
    world.start()
    assert world.end(0) == []
    assert not world.core.user_endpoints


def test_what_cannot_start_is_told_with_its_own_words() -> None:
    world = World()
    world.start(is_online=False)
    world.say(Failed(step="schema", text="WORKERS must be a number", status=65))
    assert only_notice(world.end(65)) == Notice(
        user_endpoint_id=uep(), queues={"generation": 1}, text="WORKERS must be a number", is_final=True
    )


@pytest.mark.parametrize("is_online", [True, False])
@pytest.mark.parametrize(("status", "word"), [(-9, "SIGKILL"), (70, "70")])
def test_what_dies_without_a_word_is_to_be_started_again(is_online: bool, status: int, word: str) -> None:
    world = World()
    world.start(is_online=is_online)
    notice = only_notice(world.end(status))
    assert not notice.is_final
    assert word in notice.text


def test_what_worked_and_then_failed_is_to_be_started_again() -> None:
    world = World()
    world.start()
    world.say(Failed(step="engine", text="the scheduler is gone", status=70))
    notice = only_notice(world.end(70))
    assert (notice.text, notice.is_final) == ("the scheduler is gone", False)


@pytest.mark.parametrize("sent_s", [-181.0, 181.0])
def test_a_skewed_clock_is_told(sent_s: float) -> None:
    notice = only_notice(World().receive(sent_s=sent_s))
    assert "181 s" in notice.text
    assert "clock" in notice.text


def test_without_mapping_only_the_owners_identities_count() -> None:
    world = World(own_identities=frozenset({"somebody"}))
    assert "untrusted identity" in only_notice(world.receive()).text
    assert isinstance(World(own_identities=frozenset({ME})).receive()[0], Resolve)


def test_refusals_and_unusable_commands_are_told_and_forgotten() -> None:
    world = World()
    world.receive()
    text = "Identity failed to map to a local user name"
    assert only_notice(world.handle(ResolveRefused(user_endpoint_id=uep(), attempt=1, text=text))).text == text
    assert not world.core.user_endpoints
    unusable = Unusable(user_endpoint_id=uep(2), queues={}, text="no name")
    assert only_notice(world.handle(Received(command=unusable, at_unix_s=0))).user_endpoint_id == uep(2)
    world.receive(3)
    world.resolve(3)
    assert only_notice(world.handle(LaunchFailed(user_endpoint_id=uep(3), text="no process"))).text == "no process"


def test_bounds_are_kept_and_told() -> None:
    world = World(max_user_endpoints=3, max_user_endpoints_per_user=1)
    world.start(1, key="alice")
    world.receive(2)
    assert "max_user_endpoints_per_user: 1" in only_notice(world.resolve(2, key="alice")).text
    world.start(2, key="bob")
    world.start(3, key="carol")
    assert "max_user_endpoints: 3" in only_notice(world.receive(4)).text
    world.end(0, 1)
    world.start(4, key="alice")


def test_an_administrator_stops_one_and_what_waits_for_it_fails() -> None:
    world = World()
    world.start()
    wish = StopUserEndpoint(which=uep(), reason="maintenance", username="", sent_unix_s=NOW_UNIX_S)
    (sent,) = world.handle(Received(command=wish, at_unix_s=NOW_UNIX_S))
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Stop)
    assert world.receive(generation=2) == []
    notice = only_notice(world.end(0))
    assert notice.is_final
    assert "stopped by the administrator of the endpoint: maintenance" in notice.text
    assert world.receive() == []  # the service had not heard of it yet; if tasks still wait, it asks again
    world.now_s += STOPPED_MEMORY_S + 1
    assert isinstance(world.receive()[0], Resolve)


def test_one_that_does_not_end_gets_signals() -> None:
    world = World()
    world.start()
    world.say(Rendered(config="a: 1\n", grace_s=60))
    world.handle(StopManager(reason="asked"))
    seen = []
    while len(seen) < 3:
        due_s = world.core.due_at
        assert due_s is not None
        assert due_s - world.now_s > (60 if not seen else 0)
        world.now_s = due_s
        seen += [(each.user_endpoint_id, each.number) for each in world.handle(Tick()) if isinstance(each, Signal)]
    assert seen == [(uep(), signal.SIGTERM), (uep(), signal.SIGKILL), (uep(), signal.SIGKILL)]
    assert world.end(-9) == [Finish()]


def test_a_process_without_its_line_is_ended() -> None:
    world = World()
    world.start()
    world.handle(LineEnded(user_endpoint_id=uep()))
    assert world.core.due_at is not None
    world.now_s = world.core.due_at
    assert world.handle(Tick()) == [Signal(user_endpoint_id=uep(), number=signal.SIGTERM)]


def test_a_manager_ends_after_its_user_endpoints_and_starts_nothing_more() -> None:
    world = World()
    world.start(1)
    world.receive(2)
    commands = world.handle(StopManager(reason="asked"))
    assert [type(each) for each in commands] == [Send]
    assert world.receive(3) == []
    assert world.handle(StopManager(reason="asked", is_at_once=True)) == [
        Send(user_endpoint_id=uep(1), message=Stop(reason="asked", is_at_once=True))
    ]
    assert world.end(0) == [Finish()]
    assert World().handle(StopManager(reason="asked")) == [Finish()]


def test_questions_and_audit_lines_are_passed_on() -> None:
    world = World()
    world.start()
    world.receive(generation=2)
    assert world.say(AuditLine(text="fid=1 tid=2 EXEC_START")) == [
        Record(user_endpoint_id=uep(), uid=1001, pid=4001, text="fid=1 tid=2 EXEC_START")
    ]
    assert world.say(CredentialRefused(reason="403")) == [
        Ask(user_endpoint_id=uep(), queues={"generation": 2}, reason="403")
    ]
    assert world.say(CredentialRefused(reason="403")) == [], "one question at a time"
    assert world.handle(CredentialAnswered(user_endpoint_id=uep(), why_not=None)) == [
        Send(user_endpoint_id=uep(), message=CredentialCounts(why_not=None))
    ]


def test_one_that_asks_again_and_again_is_answered_no_sooner_than_after_a_pause() -> None:
    world = World()
    world.start()
    world.say(CredentialRefused(reason="403"))
    world.handle(CredentialAnswered(user_endpoint_id=uep(), why_not=None))
    assert [world.say(CredentialRefused(reason=f"403 {n}")) for n in range(100)] == [[]] * 100
    due_s = world.core.due_at
    assert due_s == world.now_s + QUESTION_GAP_S
    assert world.handle(Tick()) == []
    world.now_s = due_s
    asked = [Ask(user_endpoint_id=uep(), queues={"generation": 1}, reason="403 0")]
    assert world.handle(Tick()) == asked, "late, but it is answered: it waits for that"
    assert world.handle(Tick()) == []
    assert world.core.due_at is None
