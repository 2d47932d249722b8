"""Kills tiny runs of every registered method at drawn moments, resumes them, and compares what they leave.

A moment is "the k-th call in a phase": while a run is watched, every call of a function of the package counts, and
while a file is written every call of a built-in function too. The first run of a method only counts; later ones
end by SIGKILL at the drawn call, in the middle of whatever they were doing. Runs are forks of a process that has
imported everything.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  (here once, instead of in every fork)
from mmengine.config import Config

import mlcil
import mlcil.reporting.plots
from mlcil.configs.compose import merge
from mlcil.datasets.table import ImageTable
from mlcil.engine.build import build_method, folder_of
from mlcil.engine.config import finish_config
from mlcil.engine.train import train
from mlcil.methods import DGR, E2E, LwFMC, MultiLane
from mlcil.methods.data_free import DataFree
from mlcil.methods.frozen_features import FrozenFeatures
from mlcil.registry import DATASETS, METHODS

PACKAGE = str(Path(mlcil.__file__).parent)
SIDE, CLASSES = 16, ("ant", "bee", "cat", "dog", "eel", "fox")

#: function of the package -> what a run does while it runs; the innermost one counts
PHASES = {
    "choose_thresholds": "calibration or inversion",
    "count_labels": "calibration or inversion",
    "recall_labels": "calibration or inversion",
    "measure_positives": "calibration or inversion",
    "invert": "calibration or inversion",
    "step": "training step",
    "predict_view": "validation",
    "update_memory": "choice of exemplars",
    "fit": "calibration or inversion",
    "calibrate": "calibration or inversion",
    "count_positives": "calibration or inversion",
    "compute_means": "calibration or inversion",
    "measure_importance": "calibration or inversion",
    "fit_correction": "second stage",
    "balance": "second stage",
    "write_atomically": "writing of a file",
}
BETWEEN = "between"


@DATASETS.register_module()
class FaultScenes:
    """Noise around colours, in memory: one class an image, or one and often the next one too."""

    name, label_cardinality = "fault-scenes", 1.5

    def __init__(self, task: str = "multi_label", per_class: int = 8, classes: int = 6) -> None:
        self.task, self.per_class = task, per_class
        self.classes = CLASSES if classes == len(CLASSES) else tuple(f"class{c}" for c in range(classes))

    def table(self, split: str) -> ImageTable:
        """Both splits have the same sizes and other noise."""
        classes = len(self.classes)
        labels = np.repeat(np.arange(classes), self.per_class)
        rng = np.random.default_rng(len(split))
        pixels = rng.integers(0, 128, (len(labels), SIDE, SIDE, 3)).astype(np.uint8)
        pixels += (20 * np.stack([labels % 6, 5 - labels % 6, labels % 2], 1)).astype(np.uint8)[:, None, None]
        one_hot = np.eye(classes, dtype=np.int8)[labels]
        if self.task == "multi_label":
            one_hot[::2] |= np.roll(one_hot, 1, 1)[::2]
        ids = tuple(range(len(labels)))
        return ImageTable(split, self.classes, ids, (), one_hot, one_hot == 1, pixels)

    def train(self) -> ImageTable:
        return self.table("train")

    def test(self) -> ImageTable:
        return self.table("test")


# -- a tiny run of every method ---------------------------------------------------------------------------

BACKBONE = {"name": "resnet32_abd", "blocks": (1, 1), "widths": (4, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
TRANSFORMER = {"dim": 16, "depth": 2, "heads": 4}
LANES = {
    "backbone": {
        "name": "vit_tiny_patch16_224",
        "trunk": {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 4},
    },
    "head": {"type": "lanes", "tokens": 3, "prompts": 2, "prompt_blocks": 1},
    "frozen_backbone": True,
}
HEADS = (
    {"type": "linear"},
    {"type": "full_linear", "num_classes": len(CLASSES)},
    {"type": "session_linear", "bias": True},
    {"type": "ica", "embed_dim": 16, "num_heads": 4},
    {"type": "prototype"},
    {"type": "graph"},
    {"type": "kbk"},
    {"type": "csc", "node_channels": 8},
)
#: arguments that make a method's long parts short
SHORT = {
    "inversion": {"iterations": 4},
    "second": {"epochs": 2, "milestones": [1]},
    "finetune_epochs": 1,
    "finetuning": {"epochs": 2},
}
#: forms of a method that keep, draw or solve other things: its registered name, and sections on top of a candidate's
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "HCP": (
        "KBK",
        {
            "method": {"recall": "class", "unknown": "mix", "grad_comp": False},
            "network": {"head": {"type": "kbk", "purify": "flat"}},
        },
    ),
    "KRT-class": ("KRT", {"method": {"recall": "class"}}),
    "KRT-quantile": ("KRT", {"method": {"recall": "quantile"}}),
    "KRT-propagate": ("KRT", {"memory": {"labels": "propagate"}}),
    "KRT-rclp": ("KRT", {"memory": {"labels": "rclp"}}),
    "KeptFeatures-masked": ("KeptFeatures", {"method": {"unknown": "masked", "limit": 30}}),
    "L3A": (
        "Ridge",
        {
            "method": {"old_rows": "refreshed", "pseudo": "hard", "balanced": True, "strength": 10.0},
            "network": {"head": {"type": "session_linear", "bias": True, "hidden": 32}},
        },
    ),
    "LwF-all-batches": ("LwF", {"sync_batch_norm": True}),
    "LwF-accumulated": ("LwF", {"optim_wrapper": {"accumulative_counts": 3}}),
    "LwF-calibrated": ("LwF", {"method": {"calibrated": True, "relation_weight": 0.5}}),
    "Ridge-gaussian": ("Ridge", {"method": {"gaussian": True}}),
    "Ridge-per-class": ("Ridge", {"method": {"old_rows": "refreshed", "pseudo": "per_class"}}),
}


def names() -> list[str]:
    """Every registered method, and the forms above."""
    return sorted([*METHODS.module_dict, *FORMS])


def shows_one_class(name: str) -> bool:
    """Whether the method is tried on images of one class each."""
    name = FORMS[name][0] if name in FORMS else name
    return name.startswith("SingleLabel") or issubclass(METHODS.get(name), (DataFree, DGR, E2E, LwFMC))


def candidates(name: str) -> Iterator[dict[str, Any]]:
    """Sections of configs that the method may accept, the likeliest first."""
    if name in FORMS:
        name, changes = FORMS[name]
        wanted = changes.get("network", {}).get("head", {})
        for sections in candidates(name):
            head = sections["network"]["head"]
            if wanted.get("type", head["type"]) == head["type"]:
                yield merge({**sections, "network": {**sections["network"], "head": {**head, **wanted}}}, changes)
        return
    cls = METHODS.get(name)
    arguments = inspect.signature(cls.__init__).parameters
    method = {"type": name, **{key: value for key, value in SHORT.items() if key in arguments}}
    single = shows_one_class(name)
    selections = cls.memory_selections or (("random_coreset",) if single else ("herding",))
    memories: list[dict[str, Any] | None] = [{"total": 24, "selection": selections[0]}, None]
    if issubclass(cls, DataFree):
        memories.reverse()
    if "finetuning" in arguments:  # the transformers bring backbones of their own
        for kind in ("dkt", "daformer"):
            backbone = {"name": kind, **TRANSFORMER}
            head = {"type": kind, "num_heads": 4}
            yield {"method": method, "memory": memories[0], "network": {"backbone": backbone, "head": head}}
    if issubclass(cls, MultiLane):
        yield {"method": method, "memory": None, "network": LANES}
    frozen = {"frozen_backbone": True} if issubclass(cls, FrozenFeatures) else {}
    for memory in memories:
        for head in HEADS:
            yield {"method": method, "memory": memory, "network": {"backbone": BACKBONE, "head": head, **frozen}}


def config(name: str, folder: Path, sections: dict[str, Any], classes: int = 2, **changes: Any) -> Config:
    """Sessions of two or three classes, two epochs each, validated after the first one."""
    single = shows_one_class(name)
    dataset = {"type": "FaultScenes", "task": "single_label" if single else "multi_label"}
    cfg: dict[str, Any] = {
        "scenario": {"dataset": dataset, "base": classes, "increment": classes},
        "network": {"image_size": SIDE},
        "train_transform": {"cutout": 0.25, "randaugment": False, "flip": True},
        "train_cfg": {"max_epochs": 2, "val_interval": 1, "save_interval": 2},
        "train_dataloader": {"batch_size": 8, "num_workers": 0},
        "test_dataloader": {"batch_size": 16, "num_workers": 0},
        "feature_store": {"folder": str(folder / "features")},
        "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 1e-3, "weight_decay": 1e-4}},
        "precision": "fp32",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }
    cfg = merge(cfg, sections)
    for key, value in changes.items():
        cfg[key] = {**cfg[key], **value} if isinstance(value, dict) else value
    return finish_config(cfg, "run")


# -- watching and killing -----------------------------------------------------------------------------------


class Watcher:
    """A profile function that counts calls by phase, and ends the process at one of them.

    Args:
        phase, call: where; without them it only counts.
    """

    def __init__(self, phase: str | None = None, call: int = 0) -> None:
        self.phase, self.call = phase, call
        self.stack = [BETWEEN]
        self.counts: Counter[str] = Counter()

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            if self.stack[-1] == PHASES["write_atomically"]:
                self.count()
            return
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return
        if event == "call":
            if code.co_name in PHASES:
                self.stack.append(PHASES[code.co_name])
            self.count()
        elif event == "return" and code.co_name in PHASES:
            self.stack.pop()

    def count(self) -> None:
        phase = self.stack[-1]
        self.counts[phase] += 1
        if phase == self.phase and self.counts[phase] == self.call:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], Any], log: Path) -> int:
    """Run in a fork whose output goes to a file; the wait status."""
    child = forked(work, log)
    with ended_with_us([child]):
        return os.waitpid(child, 0)[1]


@contextlib.contextmanager
def ended_with_us(children: list[int]) -> Iterator[None]:
    """Forks that are still there when something interrupts the block do not write on behind it."""
    try:
        yield
    except BaseException:
        for child in children:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        raise


def forked(work: Callable[[], Any], log: Path) -> int:
    """The process number of a fork that does the work and ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        out = open(log, "a")  # noqa: SIM115  (open until the process ends)
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout = sys.stderr = out
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def both(work: Callable[[int], None], folder: Path, deadline: float = 60, launcher: bool = False) -> list[int]:
    """Fork two processes that know each other, and wait for both; their exit codes, 247 for SIGKILL.

    Args:
        work: called with the rank.
        folder: of their output.
        deadline: seconds by which one of them may outlive the other.
        launcher: end it then, as torchrun does at once: who waits for a process that died before it came to the
            meeting place waits for long.

    Raises:
        AssertionError: one outlives the other, and there is no launcher.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])

    def joined(rank: int) -> None:
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
        work(rank)

    children = [forked(lambda rank=rank: joined(rank), folder / f"rank{rank}.txt") for rank in range(2)]
    found: dict[int, int] = {}
    first = None
    with ended_with_us(children):
        while len(found) < 2:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child in children:
                found[child] = status
                first = first or time.monotonic()
            elif first is not None and time.monotonic() - first > deadline:
                assert launcher, f"one process lives {deadline} s longer than the other"
                for left in set(children) - set(found):
                    os.kill(left, signal.SIGKILL)
                first = None
            else:
                time.sleep(0.05)
    return [os.waitstatus_to_exitcode(found[child]) & 0xFF for child in children]


def started(work: Callable[[int], None], folder: Path, processes: int, launcher: bool = False) -> list[int]:
    """Exit codes of one or two forks that do the work, each told its rank; 247 for SIGKILL."""
    if processes == 2:
        return both(work, folder, 15 if launcher else 60, launcher)
    return [os.waitstatus_to_exitcode(in_child(lambda: work(0), folder / "rank0.txt")) & 0xFF]


def run(cfg: Config, watcher: Watcher | None = None, counts: Path | None = None) -> None:
    """Start the run, or go on with it when it was begun."""
    torch.set_num_threads(1)
    mlcil.reporting.plots.draw_run = lambda *_: None  # pictures of the end, hundreds of thousands of calls
    if watcher is not None:
        sys.setprofile(watcher)
    train(cfg, resume=folder_of(cfg).is_begun())
    sys.setprofile(None)
    if counts is not None and watcher is not None:
        counts.write_text(json.dumps(watcher.counts))


# -- what a run leaves ----------------------------------------------------------------------------------------


def fingerprints(folder: Path) -> dict[str, str]:
    """A hash of every file whose content must be the same; times and places are left out."""
    saved, logs = folder / "saved" / "run", folder / "logs" / "run"
    found = {}
    for path in sorted(saved.glob("session_*.pth")):
        found[path.name] = digest(torch.load(path, weights_only=True))
    state = torch.load(saved / "resume.pth", weights_only=True)
    kept = {key: state[key] for key in ("session", "parts", "random")}
    found["resume.pth"] = digest(kept)
    for path in sorted((logs / "scores").glob("*.npz")):
        with np.load(path) as arrays:
            found[f"scores/{path.name}"] = digest({key: np.asarray(arrays[key]) for key in arrays.files})
    content = json.loads((logs / "results.json").read_text())
    del content["provenance"], content["config"]
    found["results.json"] = digest(content)
    leftovers = [path.name for root in (saved, logs) for path in root.rglob("*") if path.name.startswith(".")]
    found["left behind"] = ", ".join(leftovers)
    return found


def digest(value: Any) -> str:
    """SHA-256 of nested plain values, tensors and arrays."""
    found = hashlib.sha256()
    for part in _parts(value):
        found.update(part)
    return found.hexdigest()[:16]


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            if not str(key).endswith("seconds"):
                yield f"{key}:".encode()
                yield from _parts(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"[{len(value)}".encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    else:
        yield repr(value).encode()


# -- the harness ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A method's run without interruption.

    Attributes:
        method: its name among :func:`names`.
        sections: what its config needs.
        classes: of a session.
        calls: how many calls each phase has, of each process.
        files: fingerprints.
    """

    method: str
    sections: dict[str, Any]
    classes: int
    calls: list[dict[str, int]]
    files: dict[str, str]

    def config(self, folder: Path) -> Config:
        """Of the same run elsewhere."""
        return config_for(len(self.calls), self.method, folder, self.sections, self.classes)


@dataclass(frozen=True)
class Kill:
    """One interruption.

    Attributes:
        method, phase, calls: where the run was killed; of each process.
        killed: how often.
        differs: files that are not those of the uninterrupted run; empty when all is well.
    """

    method: str
    phase: str
    calls: list[list[int]]
    killed: int
    differs: tuple[str, ...]


def config_for(processes: int, name: str, folder: Path, sections: dict[str, Any], classes: int) -> Config:
    """:func:`config` with the same batches on one or two processes."""
    changes = {"train_dataloader": {"batch_size": 4}, "launcher": "pytorch"} if processes == 2 else {}
    return config(name, folder, sections, classes, **changes)


def reference(method: str, folder: Path, classes: int = 2, processes: int = 1) -> Reference:
    """Find a config that the method accepts, and run it once without interruption.

    Raises:
        AssertionError: it accepts none of them, so :func:`candidates` has to learn of it.
    """
    for number, sections in enumerate(candidates(method)):
        place = folder / str(number)
        try:
            build_method(config(method, place, sections, classes))
            cfg = config_for(processes, method, place, sections, classes)
        except ValueError:
            continue
        place.mkdir(parents=True)
        if not any(
            started(
                lambda rank, cfg=cfg, place=place: run(cfg, Watcher(), place / f"calls{rank}.json"), place, processes
            )
        ):
            calls = [json.loads((place / f"calls{rank}.json").read_text()) for rank in range(processes)]
            return Reference(method, sections, classes, calls, fingerprints(place))
    logs = "\n".join(path.read_text()[-1500:] for path in sorted(folder.glob("*/rank*.txt")))
    raise AssertionError(f"no candidate of fault_harness.candidates() trains {method}:\n{logs}")


def kill_and_resume(known: Reference, folder: Path, phase: str, calls: list[list[int]]) -> Kill:
    """Kill the run, and its resumptions, in a phase; let it end then.

    Args:
        known: the run.
        folder: where it is repeated.
        phase: see :data:`PHASES`.
        calls: for every kill the call of each process; 0 spares it.
    """
    cfg, processes = known.config(folder), len(known.calls)
    killed = 0
    for call in calls:
        codes = started(lambda rank, call=call: run(cfg, Watcher(phase, call[rank])), folder, processes, launcher=True)
        if -signal.SIGKILL & 0xFF not in codes:
            break  # what was left of the phase had fewer calls; a run that failed shows in the comparison
        killed += 1
    codes = started(lambda rank: run(cfg), folder, processes)
    if any(codes):
        print("\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("rank*.txt"))))
        return Kill(known.method, phase, calls, killed, (f"ended with {codes}",))
    found = fingerprints(folder)
    differs = tuple(sorted(name for name in {*found, *known.files} if found.get(name) != known.files.get(name)))
    return Kill(known.method, phase, calls, killed, differs)


def draw_calls(known: Reference, phase: str, draws: random.Random, kills: int = 1) -> list[list[int]]:
    """A call of the first run, and smaller ones of its resumptions; of two processes one or both."""
    found = []
    for number in range(kills):
        totals = [calls.get(phase, 0) for calls in known.calls]
        drawn = [draws.randint(1, total if number == 0 else max(total // 2, 1)) if total else 0 for total in totals]
        spared = draws.choice(([], [0], [1])) if all(drawn) and len(drawn) > 1 else []
        found.append([0 if rank in spared else call for rank, call in enumerate(drawn)])
    return found
