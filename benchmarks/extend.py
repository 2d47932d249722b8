"""The acceptance scenario: a tagger of all labels but five, extended by these from 500 photos that know nothing else.

    python benchmarks/extend.py LABELS [LABELS ...] [--choices 3] [--photos 500]

LABELS are folders or files with a test split that `mlcil data` reads, such as a VOC or COCO root. Prints a line a
choice and ends with code 1 when a floor is missed. ``ratio`` is the share of floors that hold.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import header

import mlcil
from mlcil import cli
from mlcil.datasets.labels import LabelledPhotos, read_labels
from mlcil.evaluation.multilabel import average_precision
from mlcil.tagger.nothing import image_of_nothing


def write(path: Path, photos: LabelledPhotos, rows: np.ndarray, names: list[str]) -> Path:
    """Photos with the cells of some labels."""
    columns = [photos.classes.index(name) for name in names]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", *names])
        for row in rows:
            cells = photos.cells_NC[row, columns]
            out.writerow([photos.files[row].absolute(), *("" if cell < 0 else int(cell) for cell in cells)])
    return path


def scores(path: Path, files: list[Path], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, L) of labels, and their thresholds."""
    tagger = mlcil.load(path)
    columns = [tagger.classes.index(name) for name in names]
    found = np.array([list(values.values()) for _, values in tagger.predict(files)])
    return found[:, columns], np.array(tagger.thresholds)[columns]


def run(words: list[object]) -> float:
    """A command; its seconds."""
    began = time.monotonic()
    if cli.main([str(word) for word in words]):
        raise SystemExit(f"failed: {words}")
    return time.monotonic() - began


def choice(photos: LabelledPhotos, seed: int, count: int, folder: Path) -> dict[str, float]:
    """One choice of five labels."""
    rng = np.random.default_rng(seed)
    test_N = photos.held_out(0.3)
    train, test = np.flatnonzero(~test_N), np.flatnonzero(test_N)
    shown_C, judged_C = (photos.cells_NC[train] == 1).sum(0), (photos.cells_NC[test] == 1).sum(0)
    fit = np.flatnonzero((shown_C >= 20) & (shown_C <= count // 4) & (judged_C >= 10))
    new = [photos.classes[c] for c in rng.permutation(fit)[:5]]
    old = [name for name in photos.classes if name not in new]
    shows_N = (photos.cells_NC[train][:, [photos.classes.index(name) for name in new]] == 1).any(1)
    first = rng.permutation(train[shows_N])[: count * 4 // 5]
    taken = np.concatenate([first, rng.permutation(train[~shows_N])[: count - len(first)]])
    base = np.setdiff1d(train[~shows_N], taken)
    old = [name for name in old if (photos.cells_NC[base, photos.classes.index(name)] == 1).any()]
    lists = [
        write(folder / f"{seed}_base.csv", photos, base, old),
        write(folder / f"{seed}_new.csv", photos, taken, new),
    ]
    both = write(folder / f"{seed}_all.csv", photos, np.concatenate([base, taken]), [*old, *new])
    files = [photos.files[row] for row in test]
    cells = photos.cells_NC[test][:, [photos.classes.index(name) for name in new]]
    nothing = []
    for number in range(100):
        nothing.append(folder / f"nothing_{number}.png")
        image_of_nothing(number, seed=99).save(nothing[-1])
    facts: dict[str, float] = {}
    joint = folder / f"{seed}_joint"
    run(["tag", both, "--out", joint])
    best = np.nanmean(average_precision(scores(joint, files, new)[0], cells))
    for kind, method in (("nothing", "ridge"), ("features", "kept_features")):
        one, two = folder / f"{seed}_{kind}", folder / f"{seed}_{kind}_extended"
        run(["tag", lists[0], "--out", one, "--method", method])
        facts[f"seconds, {kind} kept"] = run(["extend", one, lists[1], "--out", two])
        found, thresholds = scores(two, files, new)
        gap = np.abs(scores(one, files, old)[0] - scores(two, files, old)[0]).max()
        facts[f"old difference, {kind} kept"] = float(gap)
        facts[f"AP below joint, {kind} kept"] = 100 * float(best - np.nanmean(average_precision(found, cells)))
        fired, shown = (found >= thresholds).mean(0), (cells == 1).mean(0)
        facts[f"most given / shown, {kind} kept"] = float((fired / shown).max())
        facts[f"given on nothing, {kind} kept"] = float((scores(two, nothing, new)[0] >= thresholds).mean(0).max())
    print(f"{photos.source.name}, {', '.join(new)}: " + "; ".join(f"{k} {v:.3g}" for k, v in facts.items()), flush=True)
    return facts


FLOORS = {"seconds": 60.0, "old difference": 0.0, "most given / shown": 2.0, "given on nothing": 0.05}
BELOW_JOINT = {"nothing": 8.0, "features": 3.0}


def main() -> int:
    """All data sets and choices."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("labels", nargs="+", type=Path)
    options.add_argument("--choices", type=int, default=3)
    options.add_argument("--photos", type=int, default=500)
    given = options.parse_args()
    print(header(torch.device("cpu")), flush=True)
    missed, floors = [], 0
    for source in given.labels:
        photos = read_labels(source)
        with tempfile.TemporaryDirectory() as folder:
            found = [choice(photos, seed, given.photos, Path(folder)) for seed in range(given.choices)]
        for key in found[0]:
            word, kind = key.rsplit(", ", 1)
            values = [facts[key] for facts in found]
            below = word == "AP below joint"
            value = float(np.mean(values)) if below else max(values)
            floor = BELOW_JOINT[kind.split()[0]] if below else FLOORS[word]
            print(f"{source.name}: {key}: {value:.3g} (at most {floor:g})")
            missed += [key] if value > floor else []
        floors += len(found[0])
    print(f"ratio {1 - len(missed) / floors:.2f}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
