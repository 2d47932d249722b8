"""Many runs and one table: methods x seeds x class orders.

A bench config is a python file with the settings of :class:`Bench`, such as those of ``mlcil/configs/bench/demo.py``.

Every run is a process that does what ``python -m mlcil train`` does (:mod:`~mlcil.commands.bench_processes`), writes
``logs/<bench>/<run>/`` and ``saved_models/<bench>/<run>/``, and can be resumed. A finished run of the same config is
not run again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from mlcil.commands.bench_processes import Processes, Request
from mlcil.configs import compose
from mlcil.engine.config import load_config, read_python
from mlcil.engine.settings import NotNegative, Positive
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.reporting import comparison
from mlcil.reporting.published import Published, differences, experiments, published, source_of
from mlcil.reporting.run_settings import settings_of
from mlcil.reporting.session_lines import LINES, session_lines
from mlcil.reporting.tables import markdown
from mlcil.schema import check
from mlcil.system.provenance import short_paths


@dataclass(frozen=True)
class Bench:
    """What a bench config sets.

    Attributes:
        title: heading of the table.
        runs: a row each, see :class:`Entry`.
        seeds: of every run.
        class_orders: values of ``scenario.class_order``; ``None`` takes what the configs say.
        prepare: what is trained once before everything else, without ``label``.
        paired: seed k goes with class order k alone, in place of every seed with every order.
        protocols: the same table once for each, such as for 5, 10 and 20 sessions, see :class:`Protocol`.
        upper_bound: label of the runs that every other one is measured against (Omega).
        published: experiment of :mod:`mlcil.reporting.published` whose numbers stand beside runs of the very settings
            of its table.
        phases: a second table, accuracy after every session: an experiment of
            :data:`mlcil.reporting.session_lines.LINES`, ``True`` for our lines alone, or ``None``.
        overrides: settings for all runs.
        jobs: runs at the same time.
        validation: share of the training images that ``choices`` are judged on; no trial reads a test image.
        trial_seeds: of the trials.
        one_table: the protocols share a table, a row a method and protocol, with F1 of calibrated scores, the MB that a
            run carries from session to session, and its seconds. Every run has a twin that trains without the
            validation images; its scores on these give the calibration, see :func:`comparison.calibrated_f1`.
    """

    title: str
    runs: Sequence[dict[str, Any]]
    seeds: Sequence[NotNegative] = (1,)
    class_orders: Sequence[Any] | None = None
    prepare: Sequence[dict[str, Any]] = ()
    paired: bool = False
    protocols: Sequence[dict[str, Any]] = ()
    upper_bound: str | None = None
    published: str | None = None
    phases: str | bool | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    jobs: Positive = 1
    validation: Annotated[float, Gt(0), Lt(1)] = 0.25
    trial_seeds: Sequence[NotNegative] = (0,)
    one_table: bool = False


@dataclass(frozen=True)
class Entry:
    """One of ``runs`` or of ``prepare``.

    Attributes:
        config: a name with its words (``lwf data=coco backbone=lite0``), or a path relative to the bench config.
        overrides: settings as on the command line.
        label: of the row; a preparation has none.
        choices: settings to choose from, each a dictionary such as ``{"method.weight": 4.0}``. Every one is trained on
            a part of the training images and judged on the rest; the one with the best last mAP or accuracy there is
            then trained on all of them.
    """

    config: str
    overrides: dict[str, Any] = field(default_factory=dict)
    label: str | None = None
    choices: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class Protocol:
    """One of ``protocols``.

    Attributes:
        label: behind the title.
        overrides: settings for all its runs.
        published: in place of the bench's.
    """

    label: str
    overrides: dict[str, Any] = field(default_factory=dict)
    published: str | None = None


def main(options: argparse.Namespace) -> int:
    """``bench CONFIG [key=value ...]``."""
    return run_bench(find_bench(options.config), options.overrides, options.jobs, options.table)


@dataclass(frozen=True)
class Job:
    """One training run of a bench."""

    name: str
    label: str | None  # row of the table; None for a preparation
    order: int
    config: str  # name with its words, or path
    overrides: tuple[str, ...]  # key=value
    run_dir: Path
    checkpoint_dir: Path
    seed: int | None = None  # None for a preparation

    @property
    def repetition(self) -> tuple[int, int | None]:
        """Class order and seed, which the runs of a row differ in."""
        return self.order, self.seed

    @property
    def same(self) -> frozenset[str]:
        """What two jobs share that do the same under two names."""
        return frozenset(word for word in self.overrides if not word.startswith("name=")) | {self.config}

    @property
    def output(self) -> Path:
        """File that takes what the run prints."""
        return self.run_dir.parent / f"{self.name}.out"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of the resolved config, and ``text``, the whole of it as it is written beside a run."""
        config = load_config(self.config, [*self.overrides, "launcher='none'"])
        return {**config.to_dict(), "text": config.pretty_text}

    def request(self, resume: bool) -> Request:
        """What is to be carried out."""
        words = [self.config] if self.config.endswith(".py") else self.config.split()
        dataset = self.settings["scenario"]["dataset"]
        how = "--resume" if resume else "--overwrite"
        return Request(["train", *words, *self.overrides, how], self.output, dataset)

    def state(self) -> str:
        """``done``, ``started`` (can be resumed) or ``new``; judged by the resolved config."""
        wanted = self.settings["text"]
        results, config = self.run_dir / "results.json", self.run_dir / "config.py"
        if results.is_file():
            content = comparison.read_results(results)
            if content.get("status") == "done" and short_paths(content.get("config")) == short_paths(wanted):
                return "done"
        same = config.is_file() and config.read_text() == wanted
        return "started" if same and (self.checkpoint_dir / "resume.pth").is_file() else "new"


def find_bench(word: str) -> Path:
    """The file of a bench: a path, or the name of one of ``mlcil/configs/bench/``.

    Raises:
        UserError: neither.
    """
    path, known = Path(word), compose.names("bench")
    if word in known:
        return compose.FOLDER / "bench" / f"{word}.py"
    if path.is_file():
        return path
    name = compose.new_name(path, known)
    now = f"; its name is {name!r} now" if name else f"; expected a python file or one of {', '.join(known)}"
    raise UserError(f"{word} is no bench config{now}")


def load_bench(path: Path, data: str = "voc") -> dict[str, Any]:
    """Read and check a bench config.

    Args:
        path: the file.
        data: stands in place of ``{data}`` in the runs' configs, see :func:`data_of`.

    Raises:
        UserError: a file that does not run, an unknown key, a value of another type, a run without label or config, or
            two that lead to one folder.
    """
    bench: dict[str, Any] = read_python(path)
    bench = {key: value for key, value in bench.items() if not key.startswith("_")}  # the file's own names
    try:
        check(Bench, bench, "")
        bench = {**vars(Bench(**bench))}
        for key, kind in (("runs", Entry), ("prepare", Entry), ("protocols", Protocol)):
            for index, entry in enumerate(bench[key]):
                check(kind, entry, f"{key}[{index}]")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    on_data = any("{data}" in run["config"] for run in bench["runs"])
    bench["runs"] = [{**run, "config": run["config"].replace("{data}", data)} for run in bench["runs"]]
    bench["data"] = data if on_data else ""
    labels = [run.get("label") for run in bench["runs"]]
    for key in ("title", "runs", "seeds"):
        if not bench[key]:
            raise UserError(f"{path}: {key} is {bench[key]!r}; expected at least one")
    if not all(labels):
        raise UserError(f"{path}: runs[{[bool(label) for label in labels].index(False)}] has no 'label'; name its row")
    suffixes = [_file_name(str(protocol["label"])) for protocol in bench["protocols"]]
    check_own_folders(path, [str(protocol["label"]) for protocol in bench["protocols"]], suffixes)
    for name in (bench["published"], *(protocol.get("published") for protocol in bench["protocols"])):
        if name is not None and name not in experiments():
            raise UserError(f"{path}: published is {name!r}; expected one of {', '.join(experiments())} or None")
    if bench["upper_bound"] is not None and bench["upper_bound"] not in labels:
        raise UserError(f"{path}: upper_bound is {bench['upper_bound']!r}; expected the label of a run")
    if bench["paired"] and len(bench["class_orders"] or ()) != len(bench["seeds"]):
        raise UserError(f"{path}: paired needs as many class_orders as seeds; give one order a seed")
    if bench["phases"] not in (None, True, *LINES):
        raise UserError(f"{path}: phases is {bench['phases']!r}; expected one of {', '.join(LINES)}, True or None")
    return bench


def check_own_folders(path: Path, labels: Sequence[str], folders: Sequence[str]) -> None:
    """Refuse names that lead to one folder, where the runs would replace each other.

    Raises:
        UserError: names the two.
    """
    first: dict[str, str] = {}
    for label, folder in zip(labels, folders, strict=True):
        if folder in first:
            raise UserError(
                f"{path}: {first[folder]!r} and {label!r} would both write into the folder {folder!r}; expected a "
                "folder for every run, so give labels that differ in letters or digits, and no seed twice"
            )
        first[folder] = label


def data_of(path: Path, words: Sequence[str]) -> tuple[str, list[str]]:
    """Data set and overrides of a bench whose configs say ``data={data}``: ``data=FOLDER`` names photos of one's own.

    Args:
        path: the bench config.
        words: ``key=value`` words of the command line.

    Returns:
        ``voc`` or ``coco``, and the words with ``scenario.dataset.root`` in place of ``data``; of another bench they
        stay as they are.

    Raises:
        UserError: the folder is laid out like neither.
    """
    folders = [Path(word.removeprefix("data=")) for word in words if word.startswith("data=")]
    if not folders or "{data}" not in path.read_text(encoding="utf-8"):
        return "voc", list(words)
    folder = folders[-1]
    if any((folder / name).is_dir() for name in ("VOCdevkit", "VOC2007", "Annotations")):
        kind = "voc"
    elif (folder / "annotations").is_dir():
        kind = "coco"
    else:
        raise UserError(
            f"data={folder} holds neither VOC's folders (VOCdevkit or Annotations) nor COCO's (annotations, "
            "train2014); name the folder of one of them"
        )
    rest = [word for word in words if not word.startswith("data=")]
    return kind, [*rest, f"scenario.dataset.root={str(folder)!r}"]


def tables_of(bench: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bench once for each of its protocols, whose ``suffix`` names the folders; or the bench itself."""
    if not bench["protocols"]:
        return [{**bench, "suffix": ""}]
    data = f"_{bench['data']}" if bench["data"] else ""
    return [
        {
            **bench,
            "title": f"{bench['title']}, {protocol['label']}",
            "overrides": {**bench["overrides"], **protocol.get("overrides", {})},
            "published": protocol.get("published"),
            "suffix": f"{data}_{_file_name(protocol['label'])}",
        }
        for protocol in bench["protocols"]
    ]


def plan_jobs(
    path: Path, bench: Mapping[str, Any], extra: Sequence[str] = (), trials: bool = False, twins: bool = False
) -> tuple[list[Job], list[Job]]:
    """Preparations and runs of a bench, seed by seed so that an early stop leaves comparable rows.

    Args:
        path: the bench config; its stem names the folders.
        bench: its content, one of :func:`tables_of`.
        extra: ``key=value`` overrides from the command line, for every run.
        trials: the runs that choose among ``choices`` in place of those of the table; the order of such a job is the
            number of its choice.
        twins: every run of the table without the validation images.

    Raises:
        UserError: two of them would write into one folder.
    """
    folder = f"bench_{path.stem}{bench['suffix']}"
    logs, saved = Path("logs") / folder, Path("saved_models") / folder

    def job(
        run: Mapping[str, Any], label: str | None, suffix: str, more: Sequence[str], order: int, seed: int | None
    ) -> Job:
        settings = {**bench["overrides"], **run.get("overrides", {})} if label else dict(run.get("overrides", {}))
        name = _file_name(label or Path(run["config"]).stem) + suffix
        overrides = run_overrides({"overrides": settings})
        overrides += [*more, *extra, f"name={name!r}", f"log_root={str(logs)!r}", f"checkpoint_root={str(saved)!r}"]
        config = str(path.parent / run["config"]) if run["config"].endswith(".py") else run["config"]
        return Job(name, label, order, config, tuple(overrides), logs / name, saved / name, seed)

    first = [job(run, None, "", (), 0, None) for run in bench["prepare"]]
    orders = bench["class_orders"]
    runs = []
    less = f"scenario.validation={bench['validation']!r}"
    if trials:
        held_out = [less, *(f"scenario.class_order={order!r}" for order in (orders or ())[:1])]
        for seed in bench["trial_seeds"]:
            for run in bench["runs"]:
                for number, choice in enumerate(run.get("choices", ())):
                    tried = {**run, "overrides": {**run.get("overrides", {}), **choice}}
                    more = [f"seed={seed!r}", *held_out]
                    runs.append(job(tried, run["label"], f"_try{number}_seed{seed}", more, number, seed))
        return first, runs
    for index, order in enumerate(orders or [None]):
        for seed in [bench["seeds"][index]] if bench["paired"] else bench["seeds"]:
            for run in bench["runs"]:
                more = [f"seed={seed!r}"]
                more += [f"scenario.class_order={order!r}"] if orders else []
                more += [less] if twins else []
                suffix = f"_seed{seed}" + (f"_order{index}" if orders else "") + ("_twin" if twins else "")
                runs.append(job(run, run["label"], suffix, more, index, seed))
    everything = [*first, *runs]
    check_own_folders(path, [job.label or job.config for job in everything], [job.name for job in everything])
    return first, runs


def run_overrides(run: Mapping[str, Any]) -> list[str]:
    """The ``key=value`` words of an entry of ``runs``."""
    return [f"{key}={value!r}" for key, value in run.get("overrides", {}).items()]


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in label.lower().replace("+", "p")).strip("_")


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
            table = choose(folder, table, trials)
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
