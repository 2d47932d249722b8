"""How long does a table of six methods and three seeds take on one's own photos, with a frozen backbone?

    python benchmarks/photo_table.py FOLDER [--jobs 2]

FOLDER holds photos in VOC's layout. The backbone is EfficientNet-Lite0 with ImageNet weights, a run has a thread, and
``--jobs`` runs go on at once. ``bench`` is the whole of ``mlcil bench``, from nothing kept to the table: features are
computed once for all runs by the fastest engine, and the runs are children of one process. ``separate`` are runs of
``mlcil train``, each a Python of its own that computes its features for itself by PyTorch, as the bench did before it
shared them; the decoded images of the bench are there already. So many of them would take long: one seed of two methods
is measured (a linear head, which is quickest, and the attention of KRT, which is slowest), side by side, and scaled to
all runs. ``--clock cpu`` counts the seconds that the processes compute, over ``--jobs``. The last mAP of the runs of
both kinds is compared, and the program fails when one differs by more than half a point. ``ratio`` is separate over
bench.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from timing import CLOCKS, header

SEEDS = (1, 2, 3)
METHODS = ("krt", "finetune", "lwf", "frozen_rows", "ridge", "kept_features")
MEASURED = ("finetune", "krt")  # seed 1 of these, separately
BAR = 0.5  # points of mAP
SETTINGS = {"threads": 1, "train_dataloader.num_workers": 0, "test_dataloader.num_workers": 0}


def config_of(method: str) -> str:
    """Words that name the config."""
    return f"{method} data=voc backbone=lite0"


def last_map(run: Path) -> float:
    """Of a run's last session, on all classes, in percent."""
    return float(json.loads((run / "results.json").read_text())["sessions"][-1]["mAP"]["seen"])


def main() -> None:
    """Print the table, the seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="VOCdevkit, or the folder that holds it")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="cpu: on a machine with other work")
    options = parser.parse_args()
    print(header(torch.device("cpu")), flush=True)
    settings = {**SETTINGS, "scenario.dataset.root": str(options.folder.resolve())}
    runs = [{"label": name, "config": config_of(name)} for name in METHODS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = str(Path(__file__).resolve().parents[1] / "src")
        environment = {**os.environ, "MLCIL_CACHE": str(folder / "cache"), "PYTHONPATH": sources}

        def timed(*words: str) -> float:
            started = time.perf_counter()
            with tempfile.TemporaryFile() as output:
                command = [sys.executable, "-m", "mlcil", *words]
                process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
                _, status, used = os.wait4(process.pid, 0)
                if status:
                    output.seek(0)
                    sys.exit(output.read().decode()[-2000:])
            passed = time.perf_counter() - started
            return passed if options.clock == "wall" else (used.ru_utime + used.ru_stime) / options.jobs

        content = {"title": "Photos", "seeds": SEEDS, "jobs": options.jobs, "overrides": settings, "runs": runs}
        (folder / "photos.py").write_text("\n".join(f"{key} = {value!r}" for key, value in content.items()))
        bench = timed("bench", "photos.py")
        print((folder / "logs/bench_photos/table.md").read_text(), flush=True)

        def alone(method: str) -> float:
            own = {**settings, "feature_store.folder": str(folder / f"features_{method}"), "engine": "torch", "seed": 1}
            words = [*config_of(method).split(), *(f"{key}={value!r}" for key, value in own.items())]
            return timed("train", *words, "--name", method)

        with ThreadPoolExecutor(options.jobs) as pool:
            seconds = dict(zip(MEASURED, pool.map(alone, MEASURED), strict=True))
        for method in MEASURED:
            both = [last_map(folder / "logs" / run) for run in (f"bench_photos/{method}_seed1", method)]
            print(f"{method}: last mAP {both[0]:.2f} in the bench, {both[1]:.2f} separately")
            if not abs(both[0] - both[1]) <= BAR:
                sys.exit(f"they differ by more than {BAR}")
    count = len(METHODS) * len(SEEDS)
    at_once = options.jobs if options.clock == "wall" else 1  # the other one counts all processes
    separate = statistics.fmean(seconds.values()) * count / at_once
    print(
        f"separate runs, {options.jobs} at once: " + ", ".join(f"{row} {value:.1f} s" for row, value in seconds.items())
    )
    print(f"{count} runs, {options.jobs} at once: separate {separate:.0f} s (scaled from these), bench {bench:.0f} s")
    print(f"ratio {separate / bench:.2f}")


if __name__ == "__main__":
    main()
