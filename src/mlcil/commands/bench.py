"""Many runs and one table: methods x seeds x class orders.

A bench config is a python file with the settings of :class:`~mlcil.commands.bench_plan.Bench`, such as those of
``mlcil/configs/bench/demo.py``.

Every run is a process that does what ``python -m mlcil train`` does (:mod:`~mlcil.commands.bench_processes`), writes
``logs/<bench>/<run>/`` and ``saved_models/<bench>/<run>/``, and can be resumed. A finished run of the same config is
not run again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlcil.commands.bench_plan import Job, data_of, find_bench, load_bench, plan_jobs, tables_of
from mlcil.commands.bench_processes import Processes
from mlcil.commands.bench_tables import bench_rows, choose, write_phases
from mlcil.errors import UserError
from mlcil.reporting import comparison


def main(options: argparse.Namespace) -> int:
    """``bench CONFIG [key=value ...]``."""
    return run_bench(find_bench(options.config), options.overrides, options.jobs, options.table)


def run_jobs(jobs: Sequence[Job], at_once: int, processes: Processes, keep: bool = True) -> list[Job]:
    """Run what is not done; returns the jobs that failed.

    Args:
        jobs: what to run.
        at_once: how many at the same time.
        processes: where.
        keep: checkpoints of finished runs stay; those of trials and twins, of which results and scores are all that is
            wanted, would be most of a bench's gigabytes.
    """
    waiting = []
    for job in jobs:
        state = job.state()  # a wrong config is found before anything is trained
        if state == "done":
            print(f"{job.name}: done before")
            if not keep:  # a bench that was killed behind the run
                shutil.rmtree(job.checkpoint_dir, ignore_errors=True)
        else:
            job.output.parent.mkdir(parents=True, exist_ok=True)
            waiting.append((job, state == "started"))
    failed: list[Job] = []
    began: dict[int, float] = {}
    for index, code in processes.carry_out([job.request(resume) for job, resume in waiting], max(1, at_once)):
        job, resume = waiting[index]
        if code is None:
            began[index] = time.monotonic()
            print(f"{job.name}: {'goes on' if resume else 'starts'}", flush=True)
        elif code == 0:
            print(f"{job.name}: done in {(time.monotonic() - began[index]) / 60:.1f} min", flush=True)
            if not keep:
                shutil.rmtree(job.checkpoint_dir)
        else:
            failed.append(job)
            lines = job.output.read_text().strip().splitlines() or ["no output"]
            print(f"{job.name}: FAILED with exit code {code}: {lines[-1]} (all of it: {job.output})", flush=True)
    return failed


def run_bench(path: Path, extra: Sequence[str] = (), jobs: int | None = None, table_only: bool = False) -> int:
    """The command ``bench``: train what is missing, write and print the table.

    Args:
        path: the bench config.
        extra: overrides for every run.
        jobs: runs at the same time; default: what the config says.
        table_only: train nothing.

    Returns:
        0, or 1 when a run failed.
    """
    kind, extra = data_of(path, extra)
    bench = load_bench(path, kind)
    failed: list[Job] = []
    everything: list[comparison.Row] = []
    tables = tables_of(bench)  # all are checked before anything is trained
    planned = [(plan_jobs(path, table, extra), plan_jobs(path, table, extra, trials=True)) for table in tables]
    at_once = jobs or bench["jobs"]
    with Processes() as processes:
        for table, (_, (first, trials)) in zip(tables, planned, strict=True):
            folder = Path("logs") / f"bench_{path.stem}{table['suffix']}"
            unprepared = [] if table_only else run_jobs(first, 1, processes)
            if not (table_only or unprepared):
                failed += run_jobs(trials, at_once, processes, keep=False)
            begun = any((job.run_dir / "results.json").is_file() for job in trials)
            if begun or not (table_only or unprepared):  # else the table says that nothing has begun
                try:
                    table = choose(folder, table, trials)
                except UserError:
                    if not unprepared:
                        raise
            runs = plan_jobs(path, table, extra)[1]
            failed += unprepared if table_only or unprepared else run_jobs(runs, at_once, processes)
            facts = {
                "bench": str(path),
                "command": shlex.join(["python", "-m", "mlcil", *sys.argv[1:]]),
                "seeds": bench["seeds"],
                "class_orders": bench["class_orders"],
            }
            twins = plan_jobs(path, table, extra, twins=True)[1] if bench["one_table"] else []
            tried = {job.same: job for job in trials}
            twins = [tried.get(twin.same, twin) for twin in twins]
            failed += [] if table_only or unprepared else run_jobs(twins, at_once, processes, keep=False)
            rows = bench_rows(table, runs, twins)
            label = table["title"].removeprefix(f"{bench['title']}, ")
            everything += [replace(row, label=f"{row.label}, {label}") for row in rows]
            title, where = table["title"], folder
            if bench["one_table"]:  # it grows with every protocol
                title, rows, where = bench["title"], everything, Path("logs") / f"bench_{path.stem}_{bench['data']}"
            print("\n" + comparison.write_tables(where, title, rows, facts))
            print(f"written: {where}/table.md, .csv, .tex, .json")
            if bench["phases"] is not None:
                print("\n" + write_phases(folder, bench, runs))
                print(f"written: {folder}/phases.md")
    return 1 if failed else 0
