"""What a storm's run prints: the faults, the counts, what held, and on failure where each task was last seen."""

from __future__ import annotations

from chaos.setups import ChaosSystem
from chaos.storm import Storm
from chaos.verdict import Verdict, findings_by_rule

__all__ = ["print_report"]

_SHOWN = 5


def print_report(storm: Storm, system: ChaosSystem, verdict: Verdict, *, seed: int, setup: str, tasks: int) -> bool:
    """Print it; whether everything held."""
    print(f"\n{'fault':>5}  {'ended':>6}  {'at':>8}  {'lasts':>7}  what")
    for struck in storm.struck:
        fault = struck.fault
        whom = struck.whom or "(nobody was there)"
        print(
            f"{fault.number:>5}  {struck.at_ended:>6}  {struck.at_s:>6.1f} s  {fault.hold_s:>5.1f} s  "
            f"{fault.action.value} {whom}"
        )
    print(f"\nAfter {storm.seconds:.0f} s:")
    for name, count in verdict.counts.items():
        print(f"{count:>8}  {name}")
    for part in system.parts():
        if part.starts > 1:
            by_itself = f", {len(part.unexpected)} by itself {part.unexpected}" if part.unexpected else ""
            print(f"{part.starts - 1:>8}  restarts of {part.name}{by_itself}")
    is_whole = not verdict.findings and not storm.is_stalled
    if is_whole:
        print(f"\nHeld: every one of {tasks} tasks ended, each with one outcome, none ran again without leave.")
        return True
    _print_failure(storm, verdict)
    print(f"\nFAILED. To see it again: CHAOS_SEED={seed} CHAOS_TASKS={tasks} CHAOS_SETUP={setup} make chaos")
    return False


def _print_failure(storm: Storm, verdict: Verdict) -> None:
    if storm.is_stalled:
        print("\nNothing moved any more before all tasks had ended.")
    for rule, findings in findings_by_rule(verdict.findings).items():
        print(f"\n{len(findings)} × {rule}")
        for finding in findings[:_SHOWN]:
            print(f"    {finding.call or '-'} {finding.task_id}: {finding.text}")
    print("\nWhere they were seen last:")
    for line in storm.last_seen(verdict.findings):
        print(f"    {line}")
