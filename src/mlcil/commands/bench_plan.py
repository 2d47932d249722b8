"""A bench config, and the runs that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from mlcil.commands.bench_processes import Request
from mlcil.configs import compose
from mlcil.engine.config import load_config, read_python
from mlcil.engine.settings import NotNegative, Positive
from mlcil.errors import UserError
from mlcil.reporting import comparison
from mlcil.reporting.published import experiments
from mlcil.reporting.session_lines import LINES
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
    if not folders or "{data}" not in repr(read_python(path).get("runs")):
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
