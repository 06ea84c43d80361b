from __future__ import annotations

from itertools import pairwise

from chaos.plan import Action, Victim, draw_plan, seconds_of_call

VICTIMS = [Victim.SERVICE, Victim.AGENT, Victim.LINK]


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    first, second, other = (draw_plan(seed, VICTIMS, tasks=1000, faults=12) for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_every_victim_is_hit_in_each_way_before_one_is_hit_twice() -> None:
    plan = draw_plan(3, VICTIMS, tasks=1000, faults=5)
    pairs = {(fault.victim, fault.action) for fault in plan}
    assert pairs == {
        (Victim.SERVICE, Action.KILL), (Victim.SERVICE, Action.FREEZE),
        (Victim.AGENT, Action.KILL), (Victim.AGENT, Action.FREEZE), (Victim.LINK, Action.CUT),
    }  # fmt: skip


def test_faults_come_in_order_while_tasks_are_left() -> None:
    plan = draw_plan(5, VICTIMS, tasks=1000, faults=40)
    assert [fault.number for fault in plan] == list(range(1, 41))
    assert all(earlier.after_ended <= later.after_ended for earlier, later in pairwise(plan))
    assert 0 < plan[0].after_ended <= plan[-1].after_ended <= 900


def test_without_victims_nothing_breaks() -> None:
    assert draw_plan(1, [], tasks=1000, faults=5) == []


def test_the_length_of_a_call_depends_on_seed_and_number_alone() -> None:
    assert seconds_of_call(1, 2) == seconds_of_call(1, 2)
    lengths = [seconds_of_call(1, number) for number in range(2000)]
    assert 10 < sum(length > 0.4 for length in lengths) < 200
