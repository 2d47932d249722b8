"""Kill tiny runs of every registered method at drawn moments and compare what their resumptions leave.

    python benchmarks/kill_and_resume.py --points 3 --seed 1

draws so many moments in every phase of every method; the last line is ``killed N times, N identical``. With
``--again 1`` every second run is killed once more while it is resumed. ``tests/faults`` has the short form.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fault_harness


def main() -> int:
    """0 when all resumed runs were identical to the uninterrupted ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1, help="moments in every phase of every method")
    parser.add_argument("--again", type=int, default=0, help="further kills of every second resumption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", help="default: all that are registered")
    parser.add_argument("--phases", nargs="*", help="default: all; the draws do not depend on it")
    options = parser.parse_args()
    killed = identical = 0
    phases: dict[str, int] = {}
    for method in options.methods or sorted(fault_harness.METHODS.module_dict):
        with tempfile.TemporaryDirectory() as folder:
            started, before = time.monotonic(), killed
            known = fault_harness.reference(method, Path(folder) / "whole")
            draws = random.Random(f"{options.seed} {method}")
            for phase in sorted(known.calls):
                for point in range(options.points):
                    kills = 1 + options.again * (point % 2)
                    calls = fault_harness.draw_calls(known, phase, draws, kills)
                    if options.phases and phase not in options.phases:
                        continue
                    found = fault_harness.kill_and_resume(known, Path(folder) / f"{phase} {point}", phase, calls)
                    killed += found.killed
                    identical += found.killed if not found.differs else 0
                    phases[phase] = phases.get(phase, 0) + found.killed
                    if found.differs:
                        print(f"  {method}, {phase}, call {found.call}: differs in {', '.join(found.differs)}")
            print(f"{method}: {killed - before} kills, {time.monotonic() - started:.0f} s", flush=True)
    print("by phase: " + ", ".join(f"{phase} {count}" for phase, count in sorted(phases.items())))
    print(f"killed {killed} times, {identical} identical")
    return 0 if killed == identical else 1


if __name__ == "__main__":
    sys.exit(main())
