"""What a bench writes: the choice of settings, the rows of its table, and the published numbers beside them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mlcil.commands.bench_plan import Job, find_bench, load_bench, plan_jobs, run_overrides, tables_of
from mlcil.configs import compose
from mlcil.engine.config import load_config
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.reporting import comparison
from mlcil.reporting.published import Published, differences, published, source_of
from mlcil.reporting.run_settings import settings_of
from mlcil.reporting.session_lines import session_lines
from mlcil.reporting.tables import markdown


def bench_rows(bench: Mapping[str, Any], jobs: Sequence[Job], twins: Sequence[Job] = ()) -> list[comparison.Row]:
    """A row a method from the runs that are done.

    Args:
        bench: its content.
        jobs: the runs.
        twins: of each its twin, with ``one_table``.

    Raises:
        UserError: runs of one class order differ in data or protocol.
    """
    found: dict[str, list[Any]] = {run["label"]: [] for run in bench["runs"]}
    by_order: dict[int, dict[str, Any]] = {}
    for job in jobs:
        if job.state() == "done":
            run = comparison.read_run(job.run_dir)
            found[str(job.label)].append(run)
            by_order.setdefault(job.order, {})[job.name] = run
    for runs in by_order.values():
        comparison.check_same_protocol(runs)
    wanted = len(jobs) // max(len(bench["runs"]), 1)
    rows = []
    for label, done in found.items():
        numbers, source, _ = published_for(done, bench["published"]) if bench["published"] else ({}, "", "")
        rows.append(comparison.make_row(label, done, numbers, wanted - len(done), source))
        if bench["one_table"]:
            mine = [pair for pair in zip(jobs, twins, strict=True) if pair[0].label == label]
            both = [(job.run_dir, twin.run_dir) for job, twin in mine if {job.state(), twin.state()} == {"done"}]
            costs = comparison.costs(done, both)
            rows[-1].values.update(costs)
            places = max(rows[-1].places.values(), key=len, default=[])
            rows[-1].places.update({column: places[: len(values)] for column, values in costs.items()})
    if bench["upper_bound"] is not None:
        bounds = {
            job.repetition: job.run_dir for job in jobs if job.label == bench["upper_bound"] and job.state() == "done"
        }
        bounded = [job for job in jobs if job.repetition in bounds and job.state() == "done"]
        for row in rows:
            pairs = [(job.run_dir, bounds[job.repetition]) for job in bounded if job.label == row.label]
            shares = [comparison.omega(*map(comparison.read_run, pair)) for pair in pairs]
            if any(share is not None for share in shares):
                row.values[comparison.OMEGA] = [share for share in shares if share is not None]
    return rows


def published_for(runs: Sequence[Mapping[str, Any]], experiment: str | None = None) -> tuple[Published, str, str]:
    """The published numbers of the very configuration that runs of one method have.

    A number belongs to the settings that the bench of its table gives its row, in any of the bench's class orders.

    Args:
        runs: contents of results.json.
        experiment: of :func:`~mlcil.reporting.published.experiments`; ``None`` looks through all.

    Returns:
        The numbers (empty where a run differs), their source, and a sentence on the nearest published row.
    """
    nearest: tuple[int, Published, str, str] | None = None
    for name, label, configs in published_settings():
        if (experiment and name != experiment) or not runs or not _alike(runs[0], configs[0]):
            continue
        found = [min((differences(run, settings) for settings in configs), key=len) for run in runs]
        most, numbers = max(found, key=len), published(name, label)
        value = ", ".join(f"{column} {numbers[column][0]:g}" for column in numbers if column not in ("CF1", "OF1"))
        sentence = f"{label} of {name} ({value})"
        if most:
            rest = f" and {len(most) - 6} more" if len(most) > 6 else ""
            sentence += f" is nearest, but differs: {'; '.join(most[:6])}{rest}"
        if nearest is None or len(most) < nearest[0]:
            nearest = (len(most), {} if most else numbers, "" if most else source_of(name), sentence)
    return nearest[1:] if nearest else ({}, "", "no number is published for this data set and method")


def _alike(run: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a published row is of the run's method and data set at all."""
    try:
        kinds = [(c["method"]["type"], c["scenario"]["dataset"]["type"]) for c in (settings_of(run), settings)]
    except (KeyError, TypeError):  # a config that was changed by hand
        return False
    return kinds[0] == kinds[1]


@cache
def published_settings() -> list[tuple[str, str, list[dict[str, Any]]]]:
    """(experiment, label, settings in each class order) of every published row that a bench of ours trains."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in compose.names("bench"):
        path = find_bench(name)
        for table in tables_of(load_bench(path)):
            for job in plan_jobs(path, table)[1] if table["published"] else ():
                if published(table["published"], str(job.label)) and (table["paired"] or job.seed == table["seeds"][0]):
                    settings = load_config(job.config, job.overrides).to_dict()
                    found.setdefault((table["published"], str(job.label)), []).append(settings)
    return [(*key, configs) for key, configs in found.items()]


def choose(folder: Path, bench: Mapping[str, Any], trials: Sequence[Job]) -> dict[str, Any]:
    """The bench with the best choice of every row among its overrides; writes ``tried.md``, what was tried.

    The judge is the last mAP or accuracy on the held-out training images, mean over the trials' seeds; of equal ones
    the first choice is taken.

    Raises:
        UserError: a row has a choice without a finished trial.
    """
    table = [["method", "choice", "held-out", "runs", "chosen"]]
    runs = []
    for run in bench["runs"]:
        means = []
        for number in range(len(run.get("choices", ()))):
            done = [job for job in trials if (job.label, job.order) == (run["label"], number) and job.state() == "done"]
            values = [comparison.last_value(comparison.read_run(job.run_dir)) for job in done]
            if not values:
                raise UserError(
                    f"{run['label']}: no trial of choice {number} is finished, so none can be chosen; look into "
                    f"{folder}/*.out and start the bench again"
                )
            means.append((statistics.fmean(values), len(values)))
        best = max(range(len(means)), key=lambda number: means[number][0], default=None)
        for number, (mean, count) in enumerate(means):
            words = ", ".join(run_overrides({"overrides": run["choices"][number]})) or "as it is"
            table.append([run["label"], words, f"{mean:.2f}", str(count), "yes" if number == best else ""])
        chosen = run["choices"][best] if best is not None else {}
        runs.append({**run, "overrides": {**run.get("overrides", {}), **chosen}})
    if len(table) > 1:
        note = (
            f"Last mAP or accuracy in percent on {100 * bench['validation']:g}% of the training images, which the "
            f"trials did not train on; seeds {', '.join(map(str, bench['trial_seeds']))}. No test image was read."
        )
        write_text(folder / "tried.md", f"## What was tried: {bench['title']}\n\n{markdown(table)}\n\n{note}\n")
        print(f"written: {folder}/tried.md")
    return {**bench, "runs": runs}


def write_phases(folder: Path, bench: Mapping[str, Any], jobs: Sequence[Job]) -> str:
    """``phases.md``: accuracy after every session, a line a method and class order; returns it."""
    several = len(bench["class_orders"] or ()) > 1
    found: dict[str, list[Any]] = {}
    for job in jobs:
        label = f"{job.label}, order {job.order + 1}" if several else str(job.label)
        runs = found.setdefault(label, [])
        if job.state() == "done":
            runs.append(comparison.read_run(job.run_dir))
    text = session_lines(bench["title"], found, None if bench["phases"] is True else bench["phases"])
    write_text(folder / "phases.md", text)
    return text
