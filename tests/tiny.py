"""The smallest data sets, configs and checkpoints that the product accepts, and ways to call its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mlcil import cli
from mlcil.engine import checkpoint
from mlcil.engine.build import build_runner, check_run
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.engine.hooks import StateHook
from mlcil.engine.loop import SessionLoop
from mlcil.engine.runner import IncrementalRunner
from mlcil.models.network import IncrementalNetwork

SOURCES = Path(__file__).resolve().parents[1] / "src"
CLASSES = ("ant", "bee", "cat", "dog")
BACKBONE = {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25}
ICA = {"type": "ica", "embed_dim": 32, "num_heads": 4}
SIZE = 64

CONFIG = """
scenario = dict(dataset={dataset!r}, base=0, increment=2)
network = dict(
    backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25),
    head=dict(type="linear"),
    image_size={size},
)
method = dict(type="Finetune")
train_transform = dict(cutout=0.0, randaugment=False)
train_dataloader = dict(batch_size=4, num_workers=0)
test_dataloader = dict(batch_size=4, num_workers=0)
train_cfg = dict(max_epochs=1)
precision = "fp32"
log_root = {logs!r}
image_cache = dict(folder={logs!r} + "_images")
checkpoint_root = {saved!r}
"""


def write_image(path: Path, seed: int = 0) -> Path:
    """A small noise image; the ending says which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def truncate(path: Path, keep: float = 0.5) -> Path:
    """Cut a file off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def coco_instances(images: int) -> dict[str, Any]:
    """An instances json; image k shows classes k and k + 1 (of 4)."""
    return {
        "images": [{"id": k, "file_name": f"{k}.jpg"} for k in range(images)],
        "annotations": [
            {"id": 10 * k + j, "image_id": k, "category_id": (k + j) % 4 + 1, "iscrowd": 0}
            for k in range(images)
            for j in range(2)
        ],
        "categories": [{"id": c, "name": name} for c, name in enumerate(CLASSES, 1)],
    }


def coco_folder(root: Path, train: int = 8, test: int = 4) -> Path:
    """COCO 2014's folders with a few images."""
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2014", train), ("val2014", test)):
        text = json.dumps(coco_instances(count))
        (root / "annotations" / f"instances_{split}.json").write_text(text)
        for k in range(count):
            write_image(root / split / f"{k}.jpg", seed=k)
    return root


def voc_folder(root: Path, train: int = 8, test: int = 4) -> Path:
    """VOC 2007's folders with a few images of own classes."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for split, count in (("trainval", train), ("test", test)):
        names = [f"{split}_{k}" for k in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for k, name in enumerate(names):
            write_image(root / "JPEGImages" / f"{name}.jpg", seed=k)
            objects = "".join(
                f"<object><name>{CLASSES[(k + j) % 4]}</name><difficult>0</difficult></object>" for j in range(2)
            )
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def write_config(folder: Path, data: Path, kind: str = "coco", more: str = "") -> Path:
    """A config of two sessions whose outputs lie beside it; the run's name is the folder's and ``run``."""
    return write_config_of(folder, {"type": kind, "root": str(data)}, SIZE, more)


def write_config_of(folder: Path, dataset: dict[str, Any], size: int, more: str = "") -> Path:
    """:func:`write_config` for any data set and image size; sessions of two classes."""
    path = folder / "run.py"
    places = {"logs": str(folder / "logs"), "saved": str(folder / "saved")}
    path.write_text(CONFIG.format(dataset=dataset, size=size, **places) + more)
    return path


def stage_content(classes: tuple[str, ...] = CLASSES[:2], head: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a stage checkpoint of session 0 holds, with random weights."""
    torch.manual_seed(0)
    network = IncrementalNetwork(BACKBONE, head or {"type": "linear"}, SIZE)
    network.grow(len(classes))
    return {
        "format": checkpoint.STAGE_FORMAT,
        "run": "tiny",
        "session": 0,
        "network": network.spec,
        "classes_per_session": network.classes_per_session,
        "classes": list(classes),
        "state_dict": network.state_dict(),
        "method": "Finetune",
        "method_state": {},
        "protocol": "B0-C2",
        "protocol_hash": "0" * 12,
        "metrics": {},
        "weights": None,
    }


def stage(classes: tuple[str, ...] = CLASSES[:2], head: dict[str, Any] | None = None) -> StageCheckpoint:
    """The same as an object."""
    content = stage_content(classes, head)
    del content["format"]
    return StageCheckpoint(**content)


def write_stage(path: Path, classes: tuple[str, ...] = CLASSES[:2], head: dict[str, Any] | None = None) -> Path:
    """A stage checkpoint."""
    checkpoint.save(path, stage_content(classes, head))
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, standard output, standard error."""
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def run_cli(*words: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mlcil", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fork_cli(*words: object, cwd: Path, begin: Callable[[], object] = lambda: None) -> subprocess.CompletedProcess[str]:
    """The command line in a fork of this process, which has imported everything.

    Args:
        words: of the command line.
        cwd: where it runs.
        begin: called in the fork before.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
                os.chdir(cwd)
                begin()
                code = cli.main([str(word) for word in words])
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([*words], code, out.read(), err.read())


def runner_of(cfg: Config, **options: bool) -> IncrementalRunner:
    """The runner of a config, before its first session."""
    return build_runner(check_run(cfg, **options))


def run_until(cfg: Config, session: int, epoch: int, prepared: bool = False) -> None:
    """Train until the state behind this epoch of the session was saved, and be interrupted there.

    Args:
        cfg: of the run.
        session, epoch: epoch 0 is before the session, or with ``prepared`` behind its first phase.
        prepared: see above.
    """
    runner = runner_of(cfg)
    hook = next(hook for hook in runner.hooks if isinstance(hook, StateHook))
    save = hook.save

    def save_and_stop(loop: SessionLoop) -> None:
        save(loop)
        place = loop.position
        if (place.session, place.epoch, place.inside) == (session, epoch, epoch > 0 or prepared):
            raise KeyboardInterrupt

    hook.save = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        runner.train()


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, and every empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }
