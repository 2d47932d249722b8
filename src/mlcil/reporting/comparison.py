"""Finished runs in one table: mean, and sample standard deviation over class orders and over seeds, named apart."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.evaluation.calibration import platt
from mlcil.evaluation.metrics import metrics_of
from mlcil.evaluation.multilabel import precision_recall_f1
from mlcil.files import check_regular, write_text
from mlcil.reporting import published as numbers
from mlcil.reporting.run_settings import NEUTRAL, REPEATED, settings_of, without
from mlcil.reporting.saved_scores import saved_scores
from mlcil.reporting.schema_of_results import contradiction
from mlcil.reporting.tables import csv_cell, four_decimals, markdown

Run = Mapping[str, Any]  # content of a results.json

#: column -> where it is found in a run (all in percent or points, see mlcil.evaluation.sessions.GLOSSARY)
COLUMNS: dict[str, tuple[str, ...]] = {
    "average mAP": ("summary", "average_mAP"),
    "last mAP": ("summary", "last_mAP"),
    "last fixed mAP": ("summary", "last_fixed_mAP"),
    "CF1": ("f1", "CF1_mean"),
    "OF1": ("f1", "OF1"),
    "forgetting": ("summary", "forgetting"),
}
#: the same for images with one class each, see mlcil.evaluation.singlelabel.GLOSSARY
SINGLE_LABEL_COLUMNS: dict[str, tuple[str, ...]] = {
    "average accuracy": ("summary", "average_accuracy"),
    "last accuracy": ("summary", "last_accuracy"),
    "last top-5": ("summary", "last_top5"),
    "forgetting": ("summary", "forgetting"),
    "backward transfer": ("summary", "backward_transfer"),
}
THRESHOLD = "0.8"  # of CF1 and OF1, as in KRT's tables
#: accuracy as a share of the upper bound's, mean over the sessions (ABD): only beside an upper bound
OMEGA = "Omega"
#: only where a bench asks for them, see :func:`costs`
COSTS = ("calibrated CF1", "calibrated OF1", "MB kept", "seconds")
#: columns whose published numbers stand in the table beside ours; csv and json have all
BESIDE = ("average mAP", "last mAP", "average accuracy", "last accuracy", OMEGA)


@dataclass
class Row:
    """A method with the values of its runs.

    Attributes:
        label: the method, with its budget behind a comma.
        values: column -> a value a run.
        places: column -> (number of the class order, seed) of each value, where that is known.
        published: column -> mean and standard deviation.
        missing: runs that were asked for and are not finished.
        task: of the runs' scenario.
        source: of the published numbers.
    """

    label: str
    values: dict[str, list[float]] = field(default_factory=dict)
    published: numbers.Published = field(default_factory=dict)
    missing: int = 0
    task: str = "multi_label"
    source: str = ""
    places: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)

    def mean(self, column: str) -> float | None:
        """Mean over the runs, ``None`` without one."""
        values = self.values.get(column)
        return statistics.fmean(values) if values else None

    def std(self, column: str) -> float | None:
        """Sample standard deviation over all runs, ``None`` with fewer than two."""
        values = self.values.get(column, [])
        return statistics.stdev(values) if len(values) > 1 else None

    def deviations(self, column: str) -> dict[str, float]:
        """Sample standard deviations by what they are over; see :func:`deviations`."""
        values = self.values.get(column, [])
        return deviations(values, self.places.get(column, [(0, seed) for seed in range(len(values))]))

    def runs(self) -> str:
        """How many runs, and of how many class orders and seeds; ``3 of 4`` where some are not finished."""
        count = max((len(values) for values in self.values.values()), default=0)
        found = max(self.places.values(), key=len, default=[])
        orders, seeds = len({order for order, _ in found}), len({str(seed) for _, seed in found})
        text = f"{count}" + (f" of {count + self.missing}" if self.missing else "")
        return text + (f" ({orders} orders, {seeds} seed{'s' * (seeds > 1)})" if orders > 1 else "")


def deviations(values: Sequence[float], places: Sequence[tuple[int, Any]]) -> dict[str, float]:
    """Sample standard deviation over class orders and over seeds, named apart.

    With one order: over ``seeds``. With several orders of one run each: over ``orders``, or over ``orders and seeds``
    where the seed changes with the order. With several orders and seeds: over ``orders``, of the orders' means, and
    over ``seeds``, within an order (the orders' variances weighted by their degrees of freedom).

    Args:
        values: one a run.
        places: (number of the class order, seed) of each.
    """
    by_order: dict[int, list[float]] = {}
    for value, (order, _) in zip(values, places, strict=True):
        by_order.setdefault(order, []).append(value)
    groups = list(by_order.values())
    if len(values) < 2:
        return {}
    if len(groups) == 1:
        return {"seeds": statistics.stdev(values)}
    means = statistics.stdev(map(statistics.fmean, groups))
    if len(groups) == len(values):
        return {"orders" if len({str(seed) for _, seed in places}) == 1 else "orders and seeds": means}
    within = sum((len(group) - 1) * statistics.variance(group) for group in groups if len(group) > 1)
    return {"orders": means, "seeds": math.sqrt(within / (len(values) - len(groups)))}


def run_folders(words: Sequence[Path]) -> list[Path]:
    """The folders among the words of a command line, whose globs may match other files: these are named and left out.

    Raises:
        UserError: no folder is among them.
    """
    stray = [word for word in words if word.is_file()]
    if len(stray) == len(words):
        raise UserError(f"{stray[0]} is a file; name run directories such as logs/krt")
    if stray:
        others = f" and {len(stray) - 1} more" if len(stray) > 1 else ""
        print(f"passed over, since it is no folder: {stray[0]}{others}", file=sys.stderr)
    return list(dict.fromkeys(word for word in words if not word.is_file()))


def find_results(folder: Path) -> Path:
    """The ``results.json`` of a run directory, or of ``logs/NAME``.

    Raises:
        UserError: there is none.
    """
    path = next((p for p in (folder / "results.json", Path("logs") / folder / "results.json") if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder} is no run directory (it has no results.json); name one such as logs/krt")
    return path


def read_results(path: Path) -> dict[str, Any]:
    """The content of a ``results.json``, of a finished run or not.

    Raises:
        UserError: it is no results file.
    """
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no results file of a run ({reason}); train the run again") from error
    if found != "mlcil-results-1":
        raise UserError(f"{path} has the format {str(found)[:60]!r}, expected 'mlcil-results-1'; train the run again")
    wrong = contradiction(content)
    if wrong:
        raise UserError(f"{path} is no results file that a run writes: {wrong}; take it from the run again")
    return dict(content)


def check_summary(path: Path, content: Run) -> None:
    """Whether the summary is that of the sessions in the same file.

    Raises:
        UserError: it is not, or the sessions lack what it is made of; says what differs.
    """
    sessions, told = content.get("sessions"), content.get("summary")
    if not isinstance(sessions, list) or not isinstance(told, Mapping):
        raise UserError(f"{path} has no list of sessions with a summary; train the run again")
    try:
        found = metrics_of(sessions[0]).summarise(sessions) if sessions else {}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} has sessions that no run writes ({reason}); train the run again") from error
    for key in {**found, **told}:
        a, b = told.get(key), found.get(key)
        if not _same(a, b):
            raise UserError(
                f"{path} was changed: its summary says {key} {a}, but its sessions give {b}; take the file from the "
                "run again, or train it again"
            )


def _same(a: Any, b: Any) -> bool:
    """Numbers up to rounding, lists of them entry by entry."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    both = isinstance(a, (int, float)) and isinstance(b, (int, float))
    return math.isclose(a, b, rel_tol=1e-9) if both else a == b


def read_run(folder: Path) -> dict[str, Any]:
    """The ``results.json`` of a finished run's directory, or of ``logs/NAME``.

    Raises:
        UserError: there is none, it is no results file or was changed by hand, or the run is not finished.
    """
    path = find_results(folder)
    content = read_results(path)
    if content.get("status") != "done":
        raise UserError(f"{path} belongs to a run with status {content.get('status')!r}; finish it with --resume first")
    check_summary(path, content)
    return content


def task_of(run: Run) -> str:
    """``multi_label`` or ``single_label``."""
    return str(run.get("task", "multi_label"))


def columns_of(task: str) -> dict[str, tuple[str, ...]]:
    """The columns of a table of such runs."""
    return SINGLE_LABEL_COLUMNS if task == "single_label" else COLUMNS


def _columns(rows: Sequence[Row]) -> list[str]:
    """The columns of a table; rows without a finished run do not count."""
    omega = [OMEGA] if any(OMEGA in row.values for row in rows) else []
    costs = [column for column in COSTS if any(column in row.values for row in rows)]
    shown = columns_of(next((row.task for row in rows if row.values), "multi_label"))
    return [*(column for column in shown if f"calibrated {column}" not in costs), *omega, *costs]


def value_of(run: Run, column: str) -> float | None:
    """A column's value in a run."""
    kind, name = columns_of(task_of(run))[column]
    f1 = run["sessions"][-1].get("f1") or {}
    found = run.get("summary", {}).get(name) if kind == "summary" else f1.get(THRESHOLD, {}).get(name)
    return None if found is None else float(found)


def last_value(run: Run) -> float:
    """Last mAP or accuracy of a finished run, in percent."""
    found = value_of(run, "last accuracy" if task_of(run) == "single_label" else "last mAP")
    return float("-inf") if found is None else found


def check_same_protocol(runs: Mapping[str, Run]) -> None:
    """Refuse runs that must not stand in one table; their class orders may differ.

    Raises:
        UserError: two runs differ in data, protocol or test set; names both.
    """
    names = list(runs)
    for name in names[1:]:
        a, b = runs[names[0]], runs[name]
        if not may_stand_together(a, b):
            raise UserError(
                f"{names[0]} ({a['dataset']} {a['protocol']}, comparison hash {a['comparison_hash']}) and {name} "
                f"({b['dataset']} {b['protocol']}, {b['comparison_hash']}) have different data or protocols; expected "
                "runs of one protocol, so compare them in two tables"
            )


def may_stand_together(a: Run, b: Run) -> bool:
    """Whether two runs have the same data and protocol, but perhaps another class order."""
    if a.get("comparison_hash") == b.get("comparison_hash"):
        return True
    return a.get("data_hash") is not None and a.get("data_hash") == b.get("data_hash")


def group_runs(runs: Mapping[str, Run]) -> dict[str, dict[str, Run]]:
    """Label -> runs that differ in seed and class order only, in the order given.

    Runs belong together when data and the settings that results.json holds are the same but for these; a run whose
    settings cannot be read goes by its name. A second run of the same order and seed is a row of its own, since
    it is no repetition.

    Args:
        runs: contents of results.json by folder.
    """
    groups: dict[tuple[Any, ...], dict[str, Run]] = {}
    for name, run in runs.items():
        settings = settings_of(run)
        short = group_name(Path(name).name)
        same: tuple[Any, ...] = (run.get("data_hash"), run.get("status"))
        same += tuple(without(settings, (*NEUTRAL, *REPEATED)).items()) if "scenario" in settings else (short,)
        copy = 0
        while any(place_of(run) == place_of(other) for other in groups.get((same, copy), {}).values()):
            copy += 1
        groups.setdefault((same, copy), {})[name] = run
    labelled: dict[str, dict[str, Run]] = {}
    for members in groups.values():
        first = Path(next(iter(members))).name
        label = next(word for word in (group_name(first), first, *members) if word not in labelled)
        labelled[label] = members
    return labelled


def place_of(run: Run) -> tuple[tuple[str, ...], Any]:
    """Class order and seed of a run."""
    return tuple(map(str, run["classes"])), (run.get("provenance") or {}).get("seed")


def make_row(
    label: str, runs: Sequence[Run], published: numbers.Published | None = None, missing: int = 0, source: str = ""
) -> Row:
    """A row from the runs of one method.

    Args:
        label: the method, with its budget behind a comma: ``KRT-R, 20/class``.
        runs: one per seed and class order.
        published: numbers of the runs' own configuration.
        missing: runs that are not finished.
        source: of the published numbers.
    """
    row = Row(label, published=published or {}, missing=missing, source=source)
    if runs:
        row.task = task_of(runs[0])
    orders: dict[Any, int] = {}
    for run in runs:
        order, seed = tuple(map(str, run.get("classes", ()))), (run.get("provenance") or {}).get("seed")
        place = orders.setdefault(order, len(orders)), seed
        for column in columns_of(row.task):
            value = value_of(run, column)
            if value is not None:
                row.values.setdefault(column, []).append(value)
                row.places.setdefault(column, []).append(place)
    return row


def costs(runs: Sequence[Run], twins: Sequence[tuple[Path, Path]]) -> dict[str, list[float]]:
    """A value a run of each of :data:`COSTS`: F1 of calibrated scores, what is carried from session to session besides
    a network with a linear head (1e6 bytes), and the time of all sessions.

    Args:
        runs: contents of results.json.
        twins: run directories for :func:`calibrated_f1`.
    """
    values = [calibrated_f1(*pair) for pair in twins]
    kept = [sum(((run["sessions"][-1].get("memory") or {}).get("bytes") or {}).values()) / 1e6 for run in runs]
    seconds = [float(sum(session.get("seconds") or 0.0 for session in run["sessions"])) for run in runs]
    columns = ([cf1 for cf1, _ in values], [of1 for _, of1 in values], kept, seconds)
    return {column: found for column, found in zip(COSTS, columns, strict=True) if found}


def calibrated_f1(folder: Path, twin: Path) -> tuple[float, float]:
    """CF1 and OF1 after the last session, a class present where its score is above 0.5 once calibrated on other images.

    Args:
        folder: of a run.
        twin: of a run with the same settings that has left a part of the training images out and is judged on them:
            its scores of these give each class the scale and the shift of :func:`~mlcil.evaluation.calibration.platt`,
            which the run's own scores take.
    """
    logits_NC, targets_NC = _last_scores(folder)
    scale_C, shift_C = platt(*_last_scores(twin)).T
    measures = precision_recall_f1(scale_C * logits_NC + shift_C, targets_NC, 0.0)  # a logit of 0 is a score of 0.5
    return measures["CF1_mean"], measures["OF1"]


def _last_scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and labels (N, C) of a finished run's last session, on the growing test set of the classes seen."""
    sessions = read_results(folder / "results.json")["sessions"]
    seen = len(sessions[-1][metrics_of(sessions[-1]).per_class])
    saved = saved_scores(folder, len(sessions), seen)
    rows, logits_NC = saved["rows"], saved["logits"]
    judged = saved["selects"][rows, :seen].any(1)
    return logits_NC[judged], saved["targets"][rows[judged], :seen]


def omega(run: Run, bound: Run) -> float | None:
    """ABD's Omega: 100 A_t / A_t(upper bound), mean over sessions, A_t the mean accuracy of the sessions so far.

    Args:
        run: of a single-label method.
        bound: of the upper bound, trained in every session on all classes so far.

    Returns:
        Percent; ``None`` where the runs have different sessions or a session has no test image.
    """
    pairs = [
        (a.get("mean_session_accuracy"), b.get("mean_session_accuracy"))
        for a, b in zip(run["sessions"], bound["sessions"], strict=False)
    ]
    if len(run["sessions"]) != len(bound["sessions"]) or not all(a is not None and b for a, b in pairs):
        return None
    return statistics.fmean(100 * a / b for a, b in pairs)


def group_name(run_name: str) -> str:
    """``krt_seed2_order1`` -> ``krt``: runs that differ in seed and class order only share a row."""
    return re.sub(r"(_seed\d+|_s\d+)?(_order\d+|_o\d+)?$", "", run_name) or run_name


# -- the four forms -------------------------------------------------------------------------------------------


def cells(rows: Sequence[Row], plus_minus: str = " ± ") -> list[list[str]]:
    """Header and rows as text; published numbers and differences only when a row has some."""
    columns = _columns(rows)
    header = ["method", "runs", *columns]
    shown = [c for c in BESIDE if any(c in row.published for row in rows)]
    for column in shown:
        header += [f"published {column}", "difference"]
    table = [header]
    for row in rows:
        line = [row.label, row.runs()]
        line += [_with_deviations(row.mean(c), row.deviations(c).values(), plus_minus) for c in columns]
        for column in shown:
            published, ours = row.published.get(column, (None, None)), row.mean(column)
            line.append(_with_deviations(published[0], [d for d in published[1:] if d is not None], plus_minus))
            line.append("-" if published[0] is None or ours is None else f"{ours - published[0]:+.1f}")
        table.append(line)
    return table


def _with_deviations(mean: float | None, deviations: Iterable[float], plus_minus: str) -> str:
    return "-" if mean is None else plus_minus.join(f"{value:.1f}" for value in (mean, *deviations))


def deviations_text(rows: Sequence[Row]) -> str:
    """What the numbers behind the means are, in words; empty with one run a row."""
    kinds = dict.fromkeys(tuple(row.deviations(c)) for row in rows for c in row.values if row.deviations(c))
    words = {
        ("seeds",): "over seeds",
        ("orders",): "over class orders",
        ("orders and seeds",): "over class orders, each with a seed of its own",
        ("orders", "seeds"): "over class orders (of their means) and then over seeds within an order",
    }
    return f"; mean ± sample standard deviation {' or '.join(words[kind] for kind in kinds)}" if kinds else ""


def caption(rows: Sequence[Row]) -> str:
    """What the columns are, in a sentence or two."""
    if "average accuracy" in _columns(rows):
        text = (
            "accuracy in percent, predictions among all classes seen so far; forgetting and backward transfer in "
            f"points over the sessions' classes{deviations_text(rows)}."
        )
        if any(OMEGA in row.values for row in rows):
            text += " Omega: accuracy in percent of the upper bound's, mean over the sessions."
        return text + _sources(rows)
    calibrated = COSTS[0] in _columns(rows)
    where = "0.5 of scores with a scale and a shift a class" if calibrated else THRESHOLD
    text = (
        "mAP, CF1 and OF1 in percent on the growing test set, CF1 and OF1 after the last session at score "
        f"{where}; forgetting in points on the fixed test set{deviations_text(rows)}."
    )
    if calibrated:
        text += (
            " Scale and shift are Platt's, from a run of the same settings and class order that has left out a part of "
            "the training images, on these; no test image is read for them. MB: what is carried from session to "
            "session besides a network with a linear head."
        )
    return text + _sources(rows)


def _sources(rows: Sequence[Row]) -> str:
    found = dict.fromkeys(row.source for row in rows if row.published)
    return f" Published: {'; '.join(found)}." if found else ""


def as_markdown(title: str, rows: Sequence[Row]) -> str:
    """A Markdown table with its title and caption."""
    return f"## {title}\n\n{markdown(cells(rows))}\n\n{caption(rows)}\n"


def write_tables(folder: Path, title: str, rows: Sequence[Row], facts: Mapping[str, Any], more: str = "") -> str:
    """``table.md``, ``.csv``, ``.tex`` and ``.json`` in the folder; returns the Markdown.

    Args:
        folder: where to.
        title: of the table.
        rows: of the table.
        facts: what else the json says.
        more: Markdown below the table.
    """
    text = as_markdown(title, rows) + more
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", as_csv(rows))
    write_text(folder / "table.tex", as_latex(title, rows))
    write_text(folder / "table.json", as_json(title, rows, facts))
    return text


def as_csv(rows: Sequence[Row]) -> str:
    """Means, standard deviations and published numbers in columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header, columns = ["method", "runs", "missing"], _columns(rows)
    for column in columns:
        header += [column, f"{column} std", f"{column} std orders", f"{column} std seeds"]
    known = [c for c in (*numbers.COLUMNS, *BESIDE[2:]) if c in columns]
    writer.writerow(header + [f"published {column}" for column in known])
    for row in rows:
        line: list[Any] = [csv_cell(row.label), max((len(v) for v in row.values.values()), default=0), row.missing]
        for column in columns:
            apart = row.deviations(column)
            line += map(four_decimals, (row.mean(column), row.std(column), apart.get("orders"), apart.get("seeds")))
        writer.writerow(line + [four_decimals(row.published.get(column, (None,))[0]) for column in known])
    return out.getvalue()


def as_latex(title: str, rows: Sequence[Row]) -> str:
    """A ``tabular`` in a ``table``, with booktabs rules."""
    table = [[_escaped(cell) for cell in line] for line in cells(rows)]
    head, *body = [" & ".join(line) + " \\\\\n" for line in table]
    return (
        f"\\begin{{table}}\n\\caption{{{_escaped(title)}. {_escaped(caption(rows))}}}\n"
        f"\\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}\n\\toprule\n{head}\\midrule\n{''.join(body)}"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


#: characters with a meaning in LaTeX, and what prints them
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\n": " ",
    **{character: f"\\{character}" for character in "&%#_${}"},
})  # fmt: skip


def _escaped(text: str) -> str:
    return text.translate(LATEX)


def as_json(title: str, rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Everything: the values of every run, means, deviations, published numbers and their source."""
    content = {
        "format": "mlcil-table-1",
        "title": title,
        "caption": caption(rows),
        **facts,
        "rows": [
            {
                "label": row.label,
                "missing": row.missing,
                "values": row.values,
                "mean": {column: row.mean(column) for column in row.values},
                "std": {column: row.std(column) for column in row.values},
                "deviations": {column: row.deviations(column) for column in row.values},
                "places": {column: [list(place) for place in places] for column, places in row.places.items()},
                "published": {column: list(pair) for column, pair in row.published.items()},
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
