"""Runs as a report needs them: what results.json holds, series over sessions, and whether runs compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlcil.errors import UserError
from mlcil.evaluation.metrics import metrics_of
from mlcil.reporting import comparison
from mlcil.reporting.comparison import THRESHOLD, find_results, read_results


@dataclass(frozen=True)
class Measure:
    """The number that a run is judged by.

    Attributes:
        name: for headings, such as ``mAP``; also key of a session, {split: percent} on the growing test set.
        per_class: key of a session, percent per seen class on the fixed test set, if there is one.
        class_name: for headings, such as ``AP``.
        fixed: key of a session, {split: percent} on the fixed test set; ``None`` where every image shows one class, so
            that no image is judged before its class is seen.
        threshold: a class whose score is greater counts as predicted on the contact sheet.
    """

    name: str
    per_class: str
    class_name: str
    fixed: str | None
    threshold: float

    @property
    def judged(self) -> str:
        """Key of the numbers that forgetting and plasticity are about."""
        return self.fixed or self.name


#: the first one whose keys a run's sessions hold is shown
MEASURES: tuple[Measure, ...] = (
    Measure("mAP", "fixed_AP", "AP", "fixed_mAP", float(THRESHOLD)),
    Measure("accuracy", "class_accuracy", "accuracy", None, 0.5),
)


@dataclass(frozen=True)
class ReportRun:
    """A run of the report.

    Attributes:
        number: place in the report, from 1; sets its colour, marker and dashes.
        folder: the run directory.
        content: of results.json.
        measure: what the run is judged by.
    """

    number: int
    folder: Path
    content: Mapping[str, Any]
    measure: Measure

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.content["name"])

    @property
    def label(self) -> str:
        """Number and name, which no two runs of a report share."""
        return f"{self.number} {self.name}"

    @property
    def sessions(self) -> Sequence[Mapping[str, Any]]:
        """Results of the finished sessions, in order."""
        return self.content["sessions"]

    @property
    def classes(self) -> list[str]:
        """Names of all classes of the scenario, in the order in which the sessions bring them."""
        return [str(name) for name in self.content["classes"]]

    def class_name(self, index: int) -> str:
        """The name of a class, its number where it has none."""
        return self.classes[index] if index < len(self.classes) else str(index)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[low, high) of each session's new classes."""
        highs = [len(session[self.measure.per_class]) for session in self.sessions]
        return list(zip([0, *highs[:-1]], highs, strict=True))

    @property
    def summary(self) -> Mapping[str, Any]:
        """Numbers of the run."""
        return self.content.get("summary", {})

    def series(self, key: str, split: str) -> list[float | None]:
        """A split's numbers over sessions, such as ``series("mAP", "seen")``."""
        return [session.get(key, {}).get(split) for session in self.sessions]

    def f1(self, name: str) -> float | None:
        """An F1 number after the last session at the threshold of KRT's tables, on the growing test set."""
        found = self.sessions[-1].get("f1", {}).get(THRESHOLD, {}).get(name)
        return None if found is None else float(found)

    @cached_property
    def summaries(self) -> list[dict[str, Any]]:
        """The summary as it stood after each session: forgetting and plasticity over sessions.

        Empty for runs that lack the keys that the summary is made of.
        """
        try:
            summarise = metrics_of(self.sessions[0]).summarise
            return [summarise(self.sessions[: t + 1]) for t in range(len(self.sessions))]
        except (KeyError, TypeError):
            return []

    @property
    def memory_bytes(self) -> Mapping[str, float]:
        """Bytes kept after the last session, by kind; empty for runs that do not say."""
        return self.sessions[-1].get("memory", {}).get("bytes", {})  # type: ignore[no-any-return]

    @property
    def memory(self) -> float | None:
        """All bytes kept after the last session, if the run says."""
        return sum(self.memory_bytes.values()) if self.memory_bytes else None

    @property
    def seconds(self) -> float | None:
        """Of all finished sessions together."""
        found = [session["seconds"] for session in self.sessions if session.get("seconds") is not None]
        return sum(found) if found else None

    @property
    def protocol(self) -> str:
        """Data set, protocol and hash in words."""
        named = f"{self.content.get('dataset', '')} {self.content.get('protocol', '')}".strip()
        return f"{named} (hash {self.content.get('protocol_hash', 'unknown')})"


@dataclass(frozen=True)
class Group:
    """Runs that differ in seed and class order only; often a single one.

    Attributes:
        label: of its lines: the run's own, or the runs' common name.
        runs: at least one.
    """

    label: str
    runs: Sequence[ReportRun]

    @property
    def style(self) -> int:
        """Number that sets colour, marker and dashes: the first run's."""
        return self.runs[0].number - 1


def group(runs: Sequence[ReportRun]) -> list[Group]:
    """The runs in groups, in the order of their first ones."""
    by_folder = {str(run.folder): run for run in runs}
    found = comparison.group_runs({name: run.content for name, run in by_folder.items()})
    groups = [(label, [by_folder[name] for name in members]) for label, members in found.items()]
    return [Group(label if len(members) > 1 else members[0].label, members) for label, members in groups]


def read_runs(folders: Iterable[Path]) -> list[ReportRun]:
    """Runs in the order given, each directory once.

    Args:
        folders: run directories, or their names under ``logs/``.

    Raises:
        UserError: a run is missing, damaged, or has no finished session.
    """
    runs: list[ReportRun] = []
    for folder in folders:
        path = find_results(folder)
        if any(path.parent.resolve() == run.folder.resolve() for run in runs):
            continue
        content = read_results(path)
        runs.append(ReportRun(len(runs) + 1, path.parent, content, _measure(path, content)))
    return runs


def _measure(path: Path, content: Mapping[str, Any]) -> Measure:
    sessions = content.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise UserError(f"{path} holds no list of sessions, expected the file that a run wrote; train the run again")
    if not sessions:
        raise UserError(f"{path} holds no finished session yet; report on the run after its first session")
    missing = [key for key in ("name", "classes") if key not in content]
    for measure in MEASURES:
        keys = (measure.name, measure.judged, measure.per_class)
        if not missing and all(key in session for session in sessions for key in keys):
            return measure
    wanted = ", ".join(("name", "classes", *(f"sessions[].{m.name}" for m in MEASURES)))
    raise UserError(f"{path} lacks numbers that a report needs, expected {wanted}; train the run again")


def notes(runs: Sequence[ReportRun]) -> list[tuple[str, str]]:
    """What a reader must know before comparing: (kind ``warning`` or ``info``, sentence)."""
    found = []
    protocols = _groups(runs, "protocol_hash")
    compared = _groups(runs, "comparison_hash") if all("comparison_hash" in r.content for r in runs) else protocols
    if len(compared) > 1:
        sentence = "These runs follow different protocols, so their numbers do not compare directly."
        found.append(("warning", f"{sentence} {_listed(compared)}."))
    elif len(protocols) > 1:
        sentence = (
            "These runs share data, class order and test set, but not the labels or sessions they trained with, so "
            "their protocol hashes differ."
        )
        found.append(("info", f"{sentence} {_listed(protocols)}."))
    if len({run.measure.name for run in runs}) > 1:
        found.append(("warning", "These runs are judged by different measures; each row and line names its own."))
    for run in runs:
        status = run.content.get("status")
        if status != "done":
            sentence = (
                f"{run.label} is not finished (status {status!r}): {run.ranges[-1][1]} of {len(run.classes)} classes "
                f"after {len(run.sessions)} session(s). Its averages and last values are of these."
            )
            found.append(("warning", sentence))
        weights = (run.content.get("provenance") or {}).get("weights") or {}
        if weights.get("leak"):
            found.append(("warning", f"{run.label} starts from weights that have seen its classes: {weights['leak']}."))
    return found


def _listed(groups: Sequence[Sequence[ReportRun]]) -> str:
    """Protocols with the names of their runs, by number alone where they are many."""
    parts = []
    for members in groups:
        many = len(members) > 4
        names = ", ".join(str(run.number) if many else run.label for run in members)
        parts.append(f"{members[0].protocol}: {'runs ' if many else ''}{names}")
    return "; ".join(parts)


def _groups(runs: Sequence[ReportRun], key: str) -> list[list[ReportRun]]:
    groups: dict[str, list[ReportRun]] = {}
    for run in runs:
        groups.setdefault(str(run.content.get(key)), []).append(run)
    return list(groups.values())
