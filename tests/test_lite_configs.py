"""Every config of multi-label runs on a laptop trains and predicts two sessions, on noise and without its weights."""

import re

import numpy as np
import pytest

from mlcil.configs.published import PUBLISHED
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import ImageTable
from mlcil.engine import build
from mlcil.engine.config import load_config
from mlcil.engine.train import train

CONFIGS = sorted(name for name in PUBLISHED if name.startswith(("lite/coco", "lite/voc")))
CLASSES = {"coco": 80, "voc": 20}
IMAGES, SIDE = 40, 64


class Noise:
    """Every image shows an early class and another one."""

    label_cardinality = 2.0

    def __init__(self, kind):
        self.name, self.classes = kind, tuple(f"{index:02}" for index in range(CLASSES[kind]))

    def train(self):
        rng = np.random.default_rng(0)
        labels_NC = np.zeros((IMAGES, len(self.classes)), np.int8)
        labels_NC[np.arange(IMAGES), np.arange(IMAGES) % len(self.classes)] = 1
        labels_NC[np.arange(IMAGES), np.arange(IMAGES) % 8] = 1
        pixels = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
        return ImageTable("train", self.classes, tuple(range(IMAGES)), (), labels_NC, labels_NC == 1, pixels)

    test = train


def test_there_are_configs():
    assert len(CONFIGS) >= 8


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_runs(name, tmp_path, monkeypatch):
    def noise(cfg):
        options = {**build.as_dict(cfg.scenario), "allow_empty_classes": True}
        return Scenario(dataset=Noise(options.pop("dataset")["type"]), **options)

    monkeypatch.setattr(build, "build_scenario", noise)
    changes = {
        "pretrained": None,
        "network.image_size": SIDE,
        "train_cfg.max_epochs": 1,
        "train_cfg.base_epochs": 1,
        "train_cfg.stop_after_session": 1,
        "train_dataloader.num_workers": 0,
        "test_dataloader.num_workers": 0,
        "log_root": str(tmp_path / "logs"),
        "checkpoint_root": str(tmp_path / "saved"),
    }
    cfg = load_config(name, [f"{key}={value!r}" for key, value in changes.items()])
    results = train(cfg)
    assert len(results) == (1 if cfg.scenario.get("joint") else 2)
    assert all(0 <= result["mAP"]["seen"] <= 100 for result in results)
    log = (tmp_path / "logs" / cfg.name / "log" / "log.txt").read_text()
    assert re.search(r"frozen backbone: (pooled )?maps of 80 images in ", log)
