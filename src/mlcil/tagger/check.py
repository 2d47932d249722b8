"""Two taggers on the same photos: what changed, label by label, with intervals.

The intervals come from a paired bootstrap: both taggers are judged on the same draws of photos, so what the photos have
in common does not widen the interval of the difference. AP is in percent; differences are in points.

Legend: N photos, C labels of a tagger, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcil import __version__
from mlcil.evaluation.multilabel import average_precision
from mlcil.reporting.contact_sheet import thumbnail
from mlcil.reporting.formats import number
from mlcil.reporting.html import environment

DRAWS = 1000
LARGEST = 8_000_000  # cells of a table of draws
SHOWN = 24  # photos of a kind on the page
WIDTH = 95  # percent of the draws that an interval covers


@dataclass(frozen=True, eq=False)
class Tagged:
    """What a tagger says of the photos.

    Attributes:
        name: of its file.
        digest: SHA-256 of its file.
        classes: C labels.
        scores_NC: (N, C).
        thresholds_C: a label is given where its score is at least this.
    """

    name: str
    digest: str
    classes: Sequence[str]
    scores_NC: np.ndarray
    thresholds_C: np.ndarray

    def column(self, label: str) -> np.ndarray:
        """Scores (N,) of a label."""
        return self.scores_NC[:, list(self.classes).index(label)]

    def threshold(self, label: str) -> float:
        """That of a label."""
        return float(self.thresholds_C[list(self.classes).index(label)])

    def given(self, label: str) -> np.ndarray:
        """Whether each photo is given a label: (N,) bool."""
        return np.asarray(self.column(label) >= self.threshold(label))


def compare(
    old: Tagged, new: Tagged, files: Sequence[Path], names: Sequence[str], cells_NL: np.ndarray, max_drop: float = 1.0
) -> dict[str, Any]:
    """Everything that ``mlcil check`` says, as plain values.

    Args:
        old, new: the two taggers' scores on the photos.
        files: N photos.
        names: L labels that are known of the photos.
        cells_NL: (N, L); 1 present, 0 absent, -1 unknown.
        max_drop: points of AP that an old label may lose.

    Returns:
        ``labels``: of every label of either tagger that is known on some photo; ``dropped``: names of those whose AP
        falls by more than ``max_drop``, the whole interval of the difference included; ``gone``: labels that only the
        old tagger has; ``not_judged``: labels that no photo shows or that nobody looked for; ``largest_difference`` of
        the scores of labels of both; ``disagreements`` and ``missing``: photos, see :func:`disagreements` and
        :func:`likely_missing`.
    """
    known = {name: cells_NL[:, index] for index, name in enumerate(names)}
    both = [name for name in old.classes if name in set(new.classes)]
    rows, not_judged = [], []
    for name in dict.fromkeys([*old.classes, *new.classes]):
        cells_N = known.get(name)
        if cells_N is None or not (cells_N == 1).any():
            not_judged.append(name)
            continue
        rows.append(_label(name, [t if name in t.classes else None for t in (old, new)], cells_N))
    for row in rows:
        row["dropped"] = row["difference"] is not None and row["difference"][2] < -max_drop
    gaps = [float(np.abs(old.column(name) - new.column(name)).max()) for name in both if len(files)]
    return {
        "format": "mlcil-check-1",
        "mlcil": __version__,
        "old": {"name": old.name, "sha256": old.digest},
        "new": {"name": new.name, "sha256": new.digest},
        "photos": len(files),
        "max_drop": max_drop,
        "labels": rows,
        "dropped": [row["label"] for row in rows if row["dropped"]],
        "gone": [name for name in old.classes if name not in set(new.classes)],
        "not_judged": not_judged,
        "largest_difference": max(gaps, default=None),
        "disagreements": disagreements(old, new, files, known),
        "missing": likely_missing(new, files, known),
    }


def _label(name: str, taggers: Sequence[Tagged | None], cells_N: np.ndarray) -> dict[str, Any]:
    """A label before and after; ``None`` where a tagger lacks it."""
    judged_N = cells_N >= 0
    present_N = cells_N[judged_N] == 1
    row: dict[str, Any] = {"label": name, "photos": len(present_N), "present": int(present_N.sum())}
    row["prevalence"] = float(present_N.mean())
    weights_DN = _draws(len(present_N))
    draws = []
    for side, tagger in zip(("before", "after"), taggers, strict=True):
        if tagger is None:
            row[side] = None
            continue
        scores_N, given_N = tagger.column(name)[judged_N], tagger.given(name)[judged_N]
        ap = 100 * float(average_precision(scores_N[:, None], present_N[:, None].astype(int))[0])
        ap_D = 100 * weighted_ap(scores_N, present_N, weights_DN)
        draws.append(ap_D)
        hits = int((given_N & present_N).sum())
        row[side] = {
            "AP": _with_interval(ap, ap_D),
            "precision": 100 * hits / int(given_N.sum()) if given_N.any() else None,
            "recall": 100 * hits / int(present_N.sum()),
            "threshold": tagger.threshold(name),
            "firing_rate": float(given_N.mean()),
            "firing_to_prevalence": float(given_N.mean() / present_N.mean()),
        }
    row["difference"] = None
    if len(draws) == 2:
        row["difference"] = _with_interval(row["after"]["AP"][0] - row["before"]["AP"][0], draws[1] - draws[0])
    return row


def _draws(photos: int) -> np.ndarray:
    """How often each photo is drawn: (D, N), the same for the same number of photos; fewer draws of very many."""
    draws = min(DRAWS, max(LARGEST // photos, 100))
    rng = np.random.default_rng([photos, draws])
    return rng.multinomial(photos, np.full(photos, 1 / photos), draws).astype(np.float32)


def weighted_ap(scores_N: np.ndarray, present_N: np.ndarray, weights_DN: np.ndarray) -> np.ndarray:
    """AP of every draw (D,), NaN where none of the drawn photos shows the label.

    Args:
        scores_N: (N,) scores.
        present_N: (N,) bool.
        weights_DN: (D, N) how often a photo is drawn.
    """
    order = np.argsort(-scores_N, kind="stable")
    drawn_DN, hit_DN = weights_DN[:, order], weights_DN[:, order] * present_N[order]
    precision_DN = np.cumsum(hit_DN, 1) / np.maximum(np.cumsum(drawn_DN, 1), 1)
    positives_D = hit_DN.sum(1)
    with np.errstate(invalid="ignore"):
        return np.asarray((hit_DN * precision_DN).sum(1) / np.where(positives_D > 0, positives_D, np.nan))


def _with_interval(value: float, draws_D: np.ndarray) -> list[float]:
    """``[value, low, high]``."""
    edge = (100 - WIDTH) / 2
    low, high = np.nanpercentile(draws_D, [edge, 100 - edge]) if np.isfinite(draws_D).any() else (math.nan,) * 2
    return [float(value), float(low), float(high)]


def disagreements(
    old: Tagged, new: Tagged, files: Sequence[Path], known: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Photos on which the taggers differ, those with the largest change of a score first.

    Returns:
        ``file``, ``gained`` and ``lost``: (label, score before or None, score after or None, cell), and ``change``.
    """
    found: dict[int, dict[str, Any]] = {}
    for label in dict.fromkeys([*old.classes, *new.classes]):
        nothing = np.zeros(len(files), np.bool_)
        before = old.given(label) if label in old.classes else nothing
        after = new.given(label) if label in new.classes else nothing
        for row in np.flatnonzero(before != after).tolist():
            scores = [float(t.column(label)[row]) if label in t.classes else None for t in (old, new)]
            cell = int(known[label][row]) if label in known else -1
            entry = found.setdefault(row, {"file": str(files[row]), "gained": [], "lost": [], "change": 0.0})
            entry["gained" if after[row] else "lost"].append((label, *scores, cell))
            entry["change"] = max(entry["change"], abs((scores[1] or 0.0) - (scores[0] or 0.0)))
    return sorted(found.values(), key=lambda entry: (-entry["change"], entry["file"]))


def likely_missing(new: Tagged, files: Sequence[Path], known: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Cells that nobody marked or that are marked absent although the new tagger is surer than of half of its hits."""
    found = []
    for label in new.classes:
        cells_N = known.get(label)
        if cells_N is None or not (cells_N == 1).any():
            continue
        scores_N = new.column(label)
        sure = max(float(np.median(scores_N[cells_N == 1])), new.threshold(label))
        for row in np.flatnonzero((cells_N != 1) & (scores_N >= sure)).tolist():
            cell = int(cells_N[row])
            found.append({"file": str(files[row]), "label": label, "score": float(scores_N[row]), "cell": cell})
    return sorted(found, key=lambda entry: (-entry["score"], entry["file"]))


def page(result: Mapping[str, Any]) -> str:
    """:func:`compare`'s result as one HTML file with thumbnails."""
    pictures = {
        entry["file"]: thumbnail(Path(entry["file"]))
        for kind in ("disagreements", "missing")
        for entry in result[kind][:SHOWN]
    }
    return (
        environment().get_template("check.html.j2").render(result=result, pictures=pictures, shown=SHOWN, WIDTH=WIDTH)
    )


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same for a terminal: a table and what follows from it."""
    wide = max([5, *(len(row["label"]) for row in result["labels"])])
    text = [
        f"{'label':<{wide}}  shown on   AP before    after   change ({WIDTH}% interval)   precision  recall"
        "  given/shown"
    ]
    for row in result["labels"]:
        before, after, change = row["before"], row["after"], row["difference"]
        moved = "" if change is None else f"{change[0]:+.1f} ({change[1]:+.1f} to {change[2]:+.1f})"
        text.append(
            f"{row['label']:<{wide}}  {row['present']:>8}  {number(before and before['AP'][0]):>10}"
            f"  {number(after and after['AP'][0]):>7}  {moved:>26}"
            f"  {number(after and after['precision']):>10}  {number(after and after['recall']):>6}"
            f"  {number(after and after['firing_to_prevalence'], 2):>11}" + ("  DROPPED" if row["dropped"] else "")
        )
    gap = result["largest_difference"]
    if gap is not None:
        text.append(f"largest difference of a score of a label that both have: {gap:g}")
    if result["gone"]:
        text.append(f"only in the old tagger: {', '.join(result['gone'])}")
    if result["not_judged"]:
        text.append(f"not judged, since no photo is known to show them: {', '.join(result['not_judged'])}")
    changed = result["disagreements"]
    count = len(result["missing"])
    alone = sum(all(before is None for _, before, *_ in (*entry["gained"], *entry["lost"])) for entry in changed)
    text.append(
        f"{len(changed)} of {result['photos']} photos get other labels than before"
        f"{f', {alone} of them in new labels only' if alone else ''}; "
        f"{count} label{'s are' if count != 1 else ' is'} likely missing in the list"
    )
    return text
