"""The acceptance scenario: a tagger of all labels but five, extended by these from 500 photos that know nothing else.

    python benchmarks/extend.py LABELS [LABELS ...] [--choices 3] [--photos 500] [--tuning] [--tiers]

LABELS are folders or files that `mlcil data` reads, such as a VOC or COCO root; their own test split is used when they
have one. Every figure is of the new labels, the worst of the five where a floor holds for each. `--tuning` judges on
photos of the training split instead, for whoever changes a setting. The seconds are those of the first extension, when
no feature of its photos is in the store. Prints a table, then PASS or MISS for each floor, and ends with code 1 after
a MISS. ``ratio`` is the share of floors that hold.

`--tiers` says instead what there is to be had from old photos, as mean AP of the new labels: nothing, 200 of them
(unlabelled, or a keep-set, of whose old labels the default method makes no use), statistics, or features; once as
above, and once when nothing is known but which photos show a new label, so that none is known to lack it. A row is
printed when it is known. Seconds and thresholds are not judged, so features come from the store of all runs, and one
part of the photos is held out instead of each in turn. ``ratio`` is then that of the last AP to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from timing import header

import mlcil
from mlcil import cli
from mlcil.datasets.feature_store import FeatureStore, features_of, table_of
from mlcil.datasets.labels import LabelledPhotos, read_labels
from mlcil.evaluation.multilabel import average_precision
from mlcil.inference.features import feature_engine
from mlcil.models.network import Maps
from mlcil.tagger import extend
from mlcil.tagger.nothing import image_of_nothing

#: most that each column may be: of the mean over the choices, or of the worst choice
FLOORS = {
    "nothing kept": {"AP below joint": 8.0},
    "features kept": {"AP below joint": 3.0},
}
EACH = {"old scores moved by": 0.0, "given / shown": 2.0, "given on nothing": 0.05, "seconds": 60.0}
JUDGED = 500  # photos at most
OLD = 200  # old photos that are given again
METHODS = {"nothing kept": "ridge", "features kept": "kept_features"}


def write(path: Path, photos: LabelledPhotos, rows: np.ndarray, names: list[str], least: int = 0) -> Path:
    """Photos with the cells of some labels; those below ``least`` are left blank."""
    columns = [photos.classes.index(name) for name in names]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", *names])
        for row in rows:
            cells = photos.cells_NC[row, columns]
            out.writerow([photos.files[row].absolute(), *("" if cell < least else int(cell) for cell in cells)])
    return path


def run(*words: object) -> float:
    """A command; its seconds."""
    began, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main([str(word) for word in words])
    if code:
        raise SystemExit(f"failed: {words}\n{said.getvalue()}")
    return time.monotonic() - began


class Judge:
    """Scores of taggers with one frozen backbone, whose features are computed once.

    Args:
        files: photos.
    """

    def __init__(self, files: list[Path]) -> None:
        self.table, self.maps = table_of(files), torch.empty(0)

    def __call__(self, path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (N, L) of labels, and their thresholds."""
        tagger = mlcil.load(path)
        if not len(self.maps):
            found = features_of(feature_engine(tagger.network, "auto", print), self.table, FeatureStore(), "pooled")
            self.maps = torch.from_numpy(found.as_maps()[np.arange(len(self.table))])
        columns = [tagger.classes.index(name) for name in names]
        with torch.inference_mode():
            scores = tagger.module(Maps.of(self.maps), exact=True).numpy()
        return scores[:, columns], np.array(tagger.thresholds)[columns]


def rows_of(photos: LabelledPhotos, tuning: bool) -> tuple[np.ndarray, np.ndarray]:
    """Training photos, and those that are judged."""
    test_N = photos.held_out(0.3)
    rng = np.random.default_rng(0)
    train = np.flatnonzero(~test_N)
    if tuning:
        train = rng.permutation(train)
        return np.sort(train[len(train) // 4 :]), np.sort(train[: len(train) // 4])
    return train, np.sort(rng.permutation(np.flatnonzero(test_N))[:JUDGED])


@dataclass
class Choice:
    """Five labels of a data set, and the lists of photos that they are learnt from.

    Attributes:
        new, old: their names, and those of the others.
        before, more, alone, both: lists: photos with old labels, photos with new ones, the same without a word on which
            photos lack them, and photos with all of both.
        base: rows of the first list.
        judge, cells: of the photos that are judged, scores and what they show of the new labels.
    """

    new: list[str]
    old: list[str]
    before: Path
    more: Path
    alone: Path
    both: Path
    base: np.ndarray
    judge: Judge
    cells: np.ndarray

    def ap(self, path: Path) -> float:
        """Mean AP of the new labels, in percent."""
        return 100 * float(np.nanmean(average_precision(self.judge(path, self.new)[0], self.cells)))


def choose(photos: LabelledPhotos, split: tuple[np.ndarray, np.ndarray], seed: int, count: int, folder: Path) -> Choice:
    """The same for the same seed."""
    rng = np.random.default_rng(seed)
    train, test = split
    shown_C, judged_C = (photos.cells_NC[train] == 1).sum(0), (photos.cells_NC[test] == 1).sum(0)
    fit = np.flatnonzero((shown_C >= 20) & (shown_C <= count // 4) & (judged_C >= 10))
    new = [photos.classes[c] for c in rng.permutation(fit)[:5]]
    columns = [photos.classes.index(name) for name in new]
    shows_N = (photos.cells_NC[train][:, columns] == 1).any(1)
    count = min(count, len(train) // 2)
    first = rng.permutation(train[shows_N])[: count * 4 // 5]
    taken = np.concatenate([first, rng.permutation(train[~shows_N])[: count - len(first)]])
    base = np.setdiff1d(train[~shows_N], taken)
    old = [n for c, n in enumerate(photos.classes) if n not in new and (photos.cells_NC[base, c] == 1).any()]
    before = write(folder / "base.csv", photos, base, old)
    more = write(folder / "new.csv", photos, taken, new)
    alone = write(folder / "alone.csv", photos, first, new, 1)
    both = write(folder / "all.csv", photos, np.concatenate([base, taken]), [*old, *new])
    judge, cells = Judge([photos.files[row] for row in test]), photos.cells_NC[test][:, columns]
    return Choice(new, old, before, more, alone, both, base, judge, cells)


Row = Callable[[str, dict[str, float]], None]


def tiers(photos: LabelledPhotos, made: Choice, folder: Path, tell: Row) -> dict[str, dict[str, float]]:
    """Mean AP by what there is of old photos; ``tell`` is called with each row."""
    rows = np.random.default_rng(0).permutation(made.base)[:OLD]
    loose = folder / "unlabelled"
    loose.mkdir(exist_ok=True)
    for row in rows:
        (loose / f"{row}{photos.files[row].suffix}").symlink_to(photos.files[row].absolute())
    before = write(
        folder / "one.csv", photos, made.base, made.old[:2]
    )  # which old labels there are changes nothing here
    made_by = {
        "statistics": ["tag", before],
        "nothing": ["drop", folder / "statistics", made.old[0]],  # which takes with it what is kept
        "features": ["tag", before, "--method", "kept_features"],
    }
    for name, words in made_by.items():
        run(*words, "--out", folder / name)
    kinds: dict[str, tuple[str, list[object]]] = {
        "nothing": ("nothing", []),
        f"{OLD} photos, unlabelled or a keep-set": ("nothing", ["--unlabelled", loose]),
        "statistics": ("statistics", []),
        "features": ("features", []),
    }
    found: dict[str, dict[str, float]] = {}
    for kind, (name, words) in kinds.items():
        found[kind] = {}
        for word, labels in (("absence known", made.more), ("absence unknown", made.alone)):
            if (kind, word) != ("nothing", "absence unknown"):  # which is refused
                out = folder / f"{kind} {word}"
                run("extend", folder / name, labels, "--out", out, *words)
                found[kind][word] = made.ap(out)
        tell(kind, found[kind])
    return found


def choice(made: Choice, first: bool, folder: Path, tell: Row) -> dict[str, dict[str, float]]:
    """By kind of memory the figures; ``first``: with the seconds; ``tell`` is called with each row."""
    new, old, judge, cells = made.new, made.old, made.judge, made.cells
    nothing = [folder / f"nothing_{number}.png" for number in range(100)]
    for number, path in enumerate(nothing):
        image_of_nothing(number, seed=99).save(path)
    blank = Judge(nothing)
    found: dict[str, dict[str, float]] = {}
    for kind, method in METHODS.items():
        one, two = folder / method, folder / f"{method}_extended"
        run("tag", made.before, "--out", one, "--method", method)
        seconds = run("extend", one, made.more, "--out", two)
        scores, thresholds = judge(two, new)
        fired, shown = (scores >= thresholds).mean(0), (cells == 1).mean(0)
        found[kind] = {
            "AP": made.ap(two),
            "old scores moved by": float(np.abs(judge(one, old)[0] - judge(two, old)[0]).max()),
            "given / shown": float((fired / shown).max()),
            "given on nothing": float((blank(two, new)[0] >= thresholds).mean(0).max()),
        }
        if first and kind == next(iter(METHODS)):
            found[kind]["seconds"] = seconds
    for method in METHODS.values():
        run("tag", made.both, "--out", folder / f"{method}_joint", "--method", method)
    best = max(made.ap(folder / f"{method}_joint") for method in METHODS.values())
    for kind, facts in found.items():
        facts["AP below joint"] = best - facts["AP"]
        tell(kind, facts)
    return found


def judged(name: str, kind: str, found: list[dict[str, float]]) -> list[tuple[bool, str]]:
    """Whether each floor holds, and its line."""
    floors: list[tuple[str, float, Callable[[list[float]], float]]] = [
        (word, floor, lambda values: float(np.mean(values))) for word, floor in FLOORS[kind].items()
    ]
    floors += [(word, floor, max) for word, floor in EACH.items()]
    lines = []
    for word, floor, over in floors:
        values = [facts[word] for facts in found if word in facts]
        if values:
            value = over(values)
            holds = value <= floor
            lines.append(
                (holds, f"{'PASS' if holds else 'MISS'} {name}, {kind}: {word} {value:.3g}, at most {floor:g}")
            )
    return lines


def main() -> int:
    """All data sets and choices."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("labels", nargs="+", type=Path)
    options.add_argument("--choices", type=int, default=3)
    options.add_argument("--photos", type=int, default=500)
    options.add_argument("--tuning", action="store_true")
    options.add_argument("--tiers", action="store_true")
    given = options.parse_args()
    print(header(torch.device("cpu")), flush=True)
    columns = ["absence known", "absence unknown"] if given.tiers else ["AP", "AP below joint", *EACH]
    print(f"{'':44}" + "".join(f"{column:>20}" for column in columns))
    lines = []

    def tell(kind: str, row: dict[str, float]) -> None:
        cells = "".join(f"{row[c]:>20.3g}" if c in row else f"{'':>20}" for c in columns)
        print(f"{'  ' + kind:44}{cells}", flush=True)

    if given.tiers:
        extend.FOLDS, extend.PROVED, with_estimate = 1, 1, extend.features_with_a_bar
        extend.features_with_a_bar = lambda network, table, say, _: with_estimate(network, table, say, lambda *_: 0.0)
    sets = {source: read_labels(source) for source in given.labels}
    found: dict[Path, list[dict[str, dict[str, float]]]] = {source: [] for source in sets}
    with tempfile.TemporaryDirectory() as work:
        if not given.tiers:
            os.environ["MLCIL_CACHE"] = str(Path(work) / "cache")
        for seed, (source, photos) in itertools.product(range(given.choices), sets.items()):
            folder = Path(tempfile.mkdtemp(dir=work))
            made = choose(photos, rows_of(photos, given.tuning), seed, given.photos, folder)
            print(f"{source.name}: {', '.join(made.new)}", flush=True)
            rows = tiers(photos, made, folder, tell) if given.tiers else choice(made, seed == 0, folder, tell)
            found[source].append(rows)
    for source, facts in found.items():
        if given.tiers:
            print(f"{source.name}, mean of {given.choices}")
            for kind, row in facts[0].items():
                tell(kind, {c: float(np.mean([rows[kind][c] for rows in facts])) for c in row})
            print(f"ratio {facts[-1]['features'][columns[0]] / facts[-1]['nothing'][columns[0]]:.2f}")
            continue
        for kind in METHODS:
            lines += judged(source.name, kind, [rows[kind] for rows in facts])
    if given.tiers:
        return 0
    print("\n".join(line for _, line in lines))
    print(f"ratio {sum(holds for holds, _ in lines) / len(lines):.2f}")
    return int(not all(holds for holds, _ in lines))


if __name__ == "__main__":
    raise SystemExit(main())
