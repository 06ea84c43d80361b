"""The decisions of the process pool, by values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcall.endpoint.engines.slots import Command, End, GiveUp, Lost, Run, Slots, Spawn


def started(size: int, max_tasks: int | None = None) -> Slots:
    slots = Slots(size=size, max_tasks_per_worker=max_tasks)
    for command in slots.start():
        assert isinstance(command, Spawn)
        slots.started(command.worker)
    return slots


def test_tasks_wait_until_a_worker_has_started() -> None:
    slots = Slots(size=1)
    assert slots.start() == [Spawn(worker=0)]
    assert slots.submit(["a"]) == []
    assert slots.started(0) == [Run(worker=0, task_id="a")]


def test_a_worker_has_one_task_and_gets_the_next_when_done() -> None:
    slots = started(1)
    assert slots.submit(["a", "b"]) == [Run(worker=0, task_id="a")]
    assert slots.finished(0) == ("a", [Run(worker=0, task_id="b")])


def test_a_lost_worker_takes_its_task_along_and_is_replaced() -> None:
    slots = started(1)
    slots.submit(["a", "b"])
    assert slots.exited(0) == [Lost(worker=0, task_id="a"), Spawn(worker=1)]
    assert slots.started(1) == [Run(worker=1, task_id="b")]


def test_a_worker_ends_after_its_share_while_the_next_one_starts() -> None:
    slots = started(1, max_tasks=1)
    slots.submit(["a"])
    assert slots.finished(0) == ("a", [End(worker=0), Spawn(worker=1)])
    assert slots.exited(0) == []


def test_only_a_waiting_task_can_be_cancelled() -> None:
    slots = started(1)
    slots.submit(["a", "b"])
    assert slots.cancel("b") is True
    assert slots.cancel("a") is False
    assert slots.cancel("b") is False
    assert slots.finished(0) == ("a", [])


def test_after_stop_nothing_starts() -> None:
    slots = started(1)
    slots.submit(["a", "b"])
    slots.stop()
    assert slots.finished(0) == ("a", [])
    assert slots.exited(0) == []


def test_workers_that_never_do_anything_are_given_up() -> None:
    slots = started(1)
    for _ in range(100):
        commands = slots.exited(max(slots._workers))
        if commands == [GiveUp()]:
            break
        (spawn,) = commands
        slots.started(spawn.worker)
    else:
        raise AssertionError("went on for ever")


def test_a_stray_result_means_nothing() -> None:
    assert started(1).finished(0) == (None, [])


@given(st.data(), st.integers(1, 4), st.one_of(st.none(), st.integers(1, 3)))
def test_each_task_ends_once_and_no_worker_has_two(data: st.DataObject, size: int, share: int | None) -> None:
    slots = Slots(size=size, max_tasks_per_worker=share)
    starting: set[int] = set()
    ending: set[int] = set()
    running: dict[int, str] = {}
    ended: list[str] = []
    submitted: list[str] = []
    idle: set[int] = set()

    def perform(commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Spawn):
                starting.add(command.worker)
            elif isinstance(command, Run):
                assert command.worker not in running
                idle.remove(command.worker)
                running[command.worker] = command.task_id
            elif isinstance(command, End):
                idle.remove(command.worker)
                ending.add(command.worker)
            elif isinstance(command, Lost):
                ended.append(command.task_id)

    perform(list(slots.start()))
    for _ in range(data.draw(st.integers(0, 40))):
        moves = ["submit", *(["started"] if starting else []), *(["finished", "lost"] if running else [])]
        moves += ["ended"] if ending else []
        move = data.draw(st.sampled_from(moves))
        if move == "submit":
            submitted.append(f"t{len(submitted)}")
            perform(list(slots.submit([submitted[-1]])))
        elif move == "started":
            worker = data.draw(st.sampled_from(sorted(starting)))
            starting.remove(worker)
            idle.add(worker)
            perform(list(slots.started(worker)))
        elif move == "finished":
            worker = data.draw(st.sampled_from(sorted(running)))
            idle.add(worker)
            task_id, commands = slots.finished(worker)
            assert task_id == running.pop(worker)
            ended.append(task_id)
            perform(list(commands))
        elif move == "lost":
            worker = data.draw(st.sampled_from(sorted(running)))
            running.pop(worker)
            perform(list(slots.exited(worker)))
        else:
            worker = ending.pop()
            perform(list(slots.exited(worker)))
        assert slots.living == size
        assert slots.running == len(running)
        assert slots.waiting == len(submitted) - len(ended) - len(running)
        assert not (slots.waiting and slots.idle)
    assert len(ended) == len(set(ended))
    assert set(ended) | set(running.values()) <= set(submitted)
