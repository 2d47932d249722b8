"""Every file of ``configs/data`` for one class an image plans on data of its layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_single
from tiny import call

from mlcil.class_orders import SUBSETS


def made(kind: str, root: Path) -> dict[str, Any]:
    """Data of the layout, and what has to differ from the data file for it."""
    if kind.startswith("cifar"):
        tiny_single.cifar_folder(root, kind)
        return {"verify": False}
    if kind == "tiny_imagenet":
        tiny_single.tiny_imagenet(root)
    if kind == "imagenet100":
        tiny_single.imagenet(root, SUBSETS["imagenet100_dytox"])
    if kind == "imagenet1000":
        tiny_single.imagenet(root)
    if kind == "folder":
        tiny_single.class_folders(root / "train", images=4)
        tiny_single.class_folders(root / "test")
    return {}


@pytest.mark.parametrize(
    "kind", ["cifar10", "cifar100", "tiny_imagenet", "imagenet100", "imagenet1000", "folder", "digits_single"]
)
def test_plan(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = made(kind, tmp_path / "data")
    if kind != "digits_single":
        options["root"] = str(tmp_path / "data")
    words = ["finetune", f"data={kind}", "protocol=2-tasks", "backbone=small"]
    words += [f"scenario.dataset.{key}={value!r}" for key, value in options.items()]
    code, text, err = call(capsys, "plan", *words)
    assert (code, err) == (0, "")
    assert f"Finetune on {kind}" in text
    assert "hidden" not in text
    plan = json.loads(call(capsys, "plan", *words, "--json")[1])
    assert plan["task"] == "single_label"
    assert sum(s["images"] for s in plan["sessions"]) == plan["training_images"]
    seen = [s["test_images"]["seen"] for s in plan["sessions"]]
    assert seen == sorted(seen)
    assert plan["unused_training_images"] == 0
