"""`make chaos`: run a storm and say what broke and what held. The exit status is 0 if everything held.

CHAOS_SEED=7 CHAOS_TASKS=5000 CHAOS_SECONDS=480 make chaos
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from chaos.plan import draw_plan
from chaos.report import print_report
from chaos.setups import SETUPS, chaos_system, missing_for, why_no_cut
from chaos.storm import Storm
from chaos.verdict import judge


def main() -> int:
    options = _options()
    setup, why_not = options.setup, missing_for(options.setup)
    if why_not:
        print(f"Not '{setup}': {why_not}.", file=sys.stderr)
        return 69
    no_cable = why_no_cut()
    if no_cable:
        print(f"The network is not cut: {no_cable}.")
    root = Path(tempfile.mkdtemp(prefix="farcall-chaos-"))
    keep = options.keep
    try:
        with chaos_system(setup, root, with_cable=no_cable is None) as system:
            plan = draw_plan(options.seed, system.victims, tasks=options.tasks, faults=options.faults)
            print(f"Seed {options.seed}, set-up {setup}, {options.tasks} tasks, {len(plan)} faults, files in {root}")
            storm = Storm(
                system, plan, seed=options.seed, tasks=options.tasks, seconds=options.seconds, stall_s=options.stall
            )
            storm.run()
            verdict = judge(storm.evidence())
            held = print_report(storm, system, verdict, seed=options.seed, setup=setup, tasks=options.tasks)
            keep = keep or not held
    finally:
        if keep:
            print(f"Logs and records: {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    return 0 if held else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    env = os.environ
    parser.add_argument("--setup", choices=SETUPS, default=env.get("CHAOS_SETUP") or _best_setup())
    seed = env.get("CHAOS_SEED") or random.randrange(10_000)
    parser.add_argument("--seed", type=int, default=int(seed), help="repeats a run's faults")
    parser.add_argument("--tasks", type=int, default=int(env.get("CHAOS_TASKS", "5000")))
    parser.add_argument("--faults", type=int, default=int(env.get("CHAOS_FAULTS", "30")))
    parser.add_argument("--seconds", type=float, default=float(env.get("CHAOS_SECONDS", "420")))
    parser.add_argument("--stall", type=float, default=float(env.get("CHAOS_STALL", "90")))
    parser.add_argument("--keep", action="store_true", help="keep logs and records also when everything held")
    return parser.parse_args()


def _best_setup() -> str:
    return next((setup for setup in reversed(SETUPS) if missing_for(setup) is None), SETUPS[0])


if __name__ == "__main__":
    sys.exit(main())
