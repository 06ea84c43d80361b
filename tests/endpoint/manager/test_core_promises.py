"""Whatever happens to a manager, in any order: its promises hold. See `manager/core.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farcall.endpoint.manager.commands import StartRequest, StopUserEndpoint
from farcall.endpoint.manager.core import STOPPED_MEMORY_S, ManagerCore, ManagerPolicy
from farcall.endpoint.manager.events import (
    CleanUp,
    Command,
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
    Resolve,
    Resolved,
    ResolveRefused,
    Said,
    Send,
    Signal,
    StopManager,
    Tick,
)
from farcall.endpoint.manager.line import Credentials, Failed, State

UEPS = [f"eeeeeeee-0000-4000-8000-{number:012}" for number in range(3)]
USERS = ["alice", "bob"]
uep = st.sampled_from(UEPS)


class Managers(RuleBasedStateMachine):
    """A core and the world around it: which processes there are, who is being looked up."""

    @initialize(total=st.none() | st.integers(1, 3), of_one=st.none() | st.integers(1, 2))
    def begin(self, total: int | None, of_one: int | None) -> None:
        policy = ManagerPolicy(
            own_identities=None, grace_s=30.0, max_user_endpoints=total, max_user_endpoints_per_user=of_one
        )
        self.policy = policy
        self.core = ManagerCore(policy)
        self.now_s = 0.0
        self.pid = 100
        self.resolving: dict[str, int] = {}
        self.processes: dict[str, str] = {}  # → whose
        self.signals: dict[str, list[int]] = {}
        self.unwanted: set[str] = set()
        self.stopped: dict[str, float] = {}
        self.is_stopping = self.is_finished = False

    def tell(self, event: Event) -> list[Command]:
        assert not self.is_finished or isinstance(event, Received | Resolved | ResolveRefused | Tick | StopManager)
        commands = self.core.handle(event, now_s=self.now_s)
        for command in commands:
            self.carry_out(command)
        return commands

    def carry_out(self, command: Command) -> None:
        if isinstance(command, Resolve):
            assert not self.is_stopping
            assert command.request.user_endpoint_id not in self.processes
            self.resolving[command.request.user_endpoint_id] = command.attempt
        elif isinstance(command, Launch):
            assert not self.is_stopping
            assert command.request.user_endpoint_id not in self.processes, "at most one process"
            self.processes[command.request.user_endpoint_id] = command.person.key
            self.signals[command.request.user_endpoint_id] = []
        elif isinstance(command, Send | Signal):
            assert command.user_endpoint_id in self.processes
            if isinstance(command, Signal):
                self.signals[command.user_endpoint_id].append(command.number)
        elif isinstance(command, CleanUp):
            assert command.user_endpoint_id not in self.processes
        elif isinstance(command, Notice):
            assert not self.is_stopping, "a manager that ends lets the service ask again"
            assert command.text
        elif isinstance(command, Finish):
            assert self.is_stopping
            assert not self.processes
            assert not self.is_finished, "once"
            self.is_finished = True

    @rule(which=uep, skew_s=st.sampled_from([0.0, 0.0, 0.0, 500.0]))
    def asked_for(self, which: str, skew_s: float) -> None:
        request = StartRequest(
            name=f"uep.m.{which}",
            user_endpoint_id=which,
            queues={},
            options={},
            runtime={},
            identity_id="me",
            username="me",
            identity_set=[{"sub": "me"}],
            sent_unix_s=skew_s,
        )
        was_resolving = which in self.core.user_endpoints and which not in self.processes
        is_unwanted = which in self.unwanted or self.now_s <= self.stopped.get(which, -100.0) + STOPPED_MEMORY_S
        commands = self.tell(Received(command=request, at_unix_s=0.0))
        if is_unwanted and not skew_s and not was_resolving:
            assert commands == []
        elif not self.is_stopping and not (was_resolving and not skew_s):
            (answer,) = commands
            assert isinstance(answer, Resolve | Notice) or (
                isinstance(answer, Send) and isinstance(answer.message, Credentials)
            )

    @precondition(lambda self: self.resolving)
    @rule(data=st.data(), key=st.sampled_from(USERS), is_known=st.booleans())
    def looked_up(self, data: Any, key: str, is_known: bool) -> None:
        which = data.draw(st.sampled_from(sorted(self.resolving)))
        attempt = self.resolving.pop(which)
        person = Person(key=key, local_user=key, account=key, uid=1001)
        if not is_known:
            self.tell(ResolveRefused(user_endpoint_id=which, attempt=attempt, text="nobody"))
            return
        commands = self.tell(Resolved(user_endpoint_id=which, attempt=attempt, person=person))
        if any(isinstance(each, Launch) for each in commands):
            if data.draw(st.booleans()):
                self.pid += 1
                self.tell(Launched(user_endpoint_id=which, pid=self.pid))
            else:
                del self.processes[which]
                self.tell(LaunchFailed(user_endpoint_id=which, text="no process"))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), phase=st.sampled_from(["starting", "online", "stopping", "failed", "silent"]))
    def said(self, data: Any, phase: str) -> None:
        which = data.draw(st.sampled_from(sorted(self.processes)))
        if phase == "silent":
            self.tell(LineEnded(user_endpoint_id=which))
            return
        message = Failed(step="run", text="it failed", status=70) if phase == "failed" else State(phase=phase)
        self.tell(Said(user_endpoint_id=which, message=message))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), status=st.sampled_from([0, 0, 70, -9]))
    def ended(self, data: Any, status: int) -> None:
        which = data.draw(st.sampled_from(sorted(self.processes)))
        del self.processes[which]
        commands = self.tell(Ended(user_endpoint_id=which, status=status))
        assert isinstance(commands[0], CleanUp)
        if which in self.unwanted:
            self.unwanted.discard(which)
            self.stopped[which] = self.now_s
        if not self.is_stopping and status:
            assert [type(each) for each in commands[1:]] == [Notice]

    @rule(which=uep)
    def stopped_by_an_administrator(self, which: str) -> None:
        wish = StopUserEndpoint(which=which, reason="", username="", sent_unix_s=0.0)
        was_there = which in self.core.user_endpoints and not self.is_stopping
        self.tell(Received(command=wish, at_unix_s=0.0))
        if was_there and which in self.processes:
            self.unwanted.add(which)
        elif was_there:
            self.stopped[which] = self.now_s

    @rule(passed_s=st.sampled_from([0.1, 5.0, 40.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s
        self.tell(Tick())

    @rule(is_at_once=st.booleans())
    def manager_stops(self, is_at_once: bool) -> None:
        self.is_stopping = True
        self.tell(StopManager(reason="asked", is_at_once=is_at_once))

    @invariant()
    def bounds_hold(self) -> None:
        counts = [list(self.processes.values()).count(user) for user in USERS]
        assert self.policy.max_user_endpoints is None or len(self.processes) <= self.policy.max_user_endpoints
        of_one = self.policy.max_user_endpoints_per_user
        assert of_one is None or max(counts) <= of_one

    @invariant()
    def what_the_core_knows_is_there(self) -> None:
        launched = {each.id for each in self.core.user_endpoints.values() if each.is_launched}
        assert launched == set(self.processes)

    @invariant()
    def nobody_is_killed_unwarned(self) -> None:
        assert all(sent[0] == 15 for sent in self.signals.values() if sent)

    @invariant()
    def a_manager_that_ends_will_end(self) -> None:
        if self.is_stopping:
            assert self.is_finished != bool(self.processes)
            assert not self.processes or self.core.due_at is not None


Managers.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestManagers = Managers.TestCase
