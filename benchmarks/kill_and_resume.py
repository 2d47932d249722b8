"""Does a run that is killed and resumed leave the same bits, and do runs of two processes end cleanly?

    python benchmarks/kill_and_resume.py --points 3 --seed 1
    python benchmarks/kill_and_resume.py --processes 2 --points 1 --seed 1
    python benchmarks/kill_and_resume.py --two-process-runs 50

The first draws so many moments in every phase of every method, kills a tiny run there, resumes it and compares files.
With ``--again 1`` every second run is killed once more while it is resumed; ``tests/faults`` has the short form. The
second draws so many moments of every method, each in a phase that is drawn too, and kills one or both of two processes.
The third starts tiny runs under torchrun, one after the other, beside a process that keeps a core busy; an end is clean
when the exit code is 0 and no process aborted. ``ratio`` is the share of identical runs, or of clean ends. Ctrl-C and
SIGTERM end with the counts so far.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from timing import header

import fault_harness  # isort: skip  (of the tests, which timing has put on the path)


def kill_and_resume(options: argparse.Namespace) -> float:
    """Share of kills behind which the resumed run was identical to the uninterrupted one."""
    killed = identical = done = 0
    kills: Counter[str] = Counter()
    methods = options.methods or fault_harness.names()
    try:
        for method in methods:
            with tempfile.TemporaryDirectory() as folder:
                started, before = time.monotonic(), killed
                known = fault_harness.reference(method, Path(folder) / "whole", processes=options.processes)
                draws = random.Random(f"{options.seed} {method}")
                phases = sorted(set().union(*known.calls))
                moments = [(phase, point) for phase in phases for point in range(options.points)]
                if options.processes == 2:
                    moments = [(draws.choice(phases), point) for point in range(options.points)]
                for phase, point in moments:
                    calls = fault_harness.draw_calls(known, phase, draws, 1 + options.again * (point % 2))
                    if options.phases and phase not in options.phases:
                        continue
                    found = fault_harness.kill_and_resume(known, Path(folder) / f"{phase} {point}", phase, calls)
                    killed += found.killed
                    identical += found.killed if not found.differs else 0
                    kills[phase] += found.killed
                    if found.differs:
                        print(f"  {method}, {phase}, calls {found.calls}: differs in {', '.join(found.differs)}")
                print(f"{method}: {killed - before} kills, {time.monotonic() - started:.0f} s")
            done += 1
    finally:  # Ctrl-C too
        print("by phase: " + ", ".join(f"{phase} {count}" for phase, count in sorted(kills.items())))
        print(f"{done} of {len(methods)} methods, killed {killed} times, {identical} identical")
    return identical / max(killed, 1)


def two_processes(runs: int) -> float:
    """Share of two-process runs that ended cleanly beside a busy core."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mlcil"]
    sections = {
        "method": {"type": "KRT"},
        "memory": {"total": 12},
        "network": {"backbone": fault_harness.BACKBONE, "head": {"type": "ica", "embed_dim": 16, "num_heads": 4}},
    }
    clean = ended = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cfg = fault_harness.config("KRT", folder, sections, 3, threads=1)
        cfg.plugins = [fault_harness.__file__]
        cfg.dump(folder / "tiny.py")
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            for run in range(runs):
                command = [*launch, "train", str(folder / "tiny.py"), "--launcher", "pytorch", "--name", f"run{run}"]
                started = time.monotonic()
                end = subprocess.run(command, capture_output=True, text=True, check=False)
                ended += 1
                if end.returncode == 0 and "terminate called" not in end.stderr:
                    clean += 1
                else:
                    print(f"run {run} ended with {end.returncode}:\n{end.stderr[-3000:]}")
                print(f"run {run}: {time.monotonic() - started:.0f} s, {clean} clean of {ended}")
        finally:  # Ctrl-C too
            busy.kill()
            busy.wait()
            print(f"{ended} of {runs} two-process runs beside a busy core, {clean} clean ends")
    return clean / runs


def main() -> int:
    """0 when every run was identical, or every end clean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=1, help="moments in every phase of every method")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1, help="of a run; 2: points of every method")
    parser.add_argument("--again", type=int, default=0, help="further kills of every second resumption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", help="default: all, and forms of them")
    parser.add_argument("--phases", nargs="*", help="default: all; the draws do not depend on it")
    parser.add_argument("--two-process-runs", type=int, default=0, metavar="N", help="count clean ends of N runs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(line_buffering=True)
    print(header(torch.device("cpu")))
    try:
        share = two_processes(options.two_process_runs) if options.two_process_runs else kill_and_resume(options)
    except KeyboardInterrupt:
        return 130
    print(f"ratio {share:.2f}")
    return 0 if share == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
