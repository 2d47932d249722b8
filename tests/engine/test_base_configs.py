"""Every data part of ``configs/_base_`` plans on data of its layout."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_single
from tiny import call

from mlcil.class_orders import SUBSETS
from mlcil.engine.config import load_config

BASES = Path(__file__).resolve().parents[2] / "configs" / "_base_"


def made(kind: str, root: Path) -> dict[str, Any]:
    """Data of the layout, and what has to differ from the base file for it."""
    if kind.startswith("cifar"):
        tiny_single.cifar_folder(root, kind)
        return {"verify": False}
    if kind == "tiny_imagenet":
        tiny_single.tiny_imagenet(root)
    if kind == "imagenet100":
        tiny_single.imagenet(root, SUBSETS["imagenet100_dytox"])
    if kind == "imagenet1000":
        tiny_single.imagenet(root)
    return {}


@pytest.mark.parametrize(
    "kind", ["cifar10", "cifar100", "tiny_imagenet", "imagenet100", "imagenet1000", "digits_single"]
)
def test_plan(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = made(kind, tmp_path / "data")
    if kind != "digits_single":
        options["root"] = str(tmp_path / "data")
    config = tmp_path / "run.py"
    config.write_text(
        f"_base_ = [{str(BASES / kind)!r} + '.py']\n"
        f"scenario = dict(dataset=dict(**{options!r}), num_sessions=2)\n"
        "network = dict(backbone=dict(name='tresnet', layers=[1, 1, 1, 1], width=0.25), head=dict(type='linear'),\n"
        "               image_size=32)\n"
        "method = dict(type='Finetune')\n"
    )
    cfg = load_config(config)
    assert cfg.scenario.class_order in ("random:0", "numpy:1993", "as_given")
    assert cfg.train_transform.cutout == 0.0
    code, text, err = call(capsys, "plan", config)
    assert (code, err) == (0, "")
    assert f"Finetune on {kind}" in text
    assert "hidden" not in text
    plan = json.loads(call(capsys, "plan", config, "--json")[1])
    assert plan["task"] == "single_label"
    assert sum(s["images"] for s in plan["sessions"]) == plan["training_images"]
    assert [s["test_images"]["seen"] for s in plan["sessions"]] == sorted(
        s["test_images"]["seen"] for s in plan["sessions"]
    )
    assert plan["unused_training_images"] == 0
