"""What is waited for before a plan is on the screen."""

import json
import os
import subprocess
import sys

import tiny
from tiny import SOURCES

STARTS = """
import sys
from mlcil import cli
assert cli.main(["plan", "krtx", "data=digits"]) == 2
assert cli.main(["train", "kr", "krtx", "data=digits"]) == 2  # the last one is meant
assert "torch" not in sys.modules
assert cli.main(["plan", "krt", "data=digits"]) == 0
assert not {"timm", "torchvision", "matplotlib", "onnx"} & set(sys.modules)
"""


def test_the_first_session_has_epochs_of_its_own(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path))
    words = ["train_cfg.base_epochs=7", "train_cfg.max_epochs=2", "train_dataloader.batch_size=10"]
    scenes = ["scenario.dataset.train_images=60", "scenario.dataset.test_images=10"]
    code, out, _ = tiny.call(capsys, "plan", "lwf", "data=digits", *scenes, *words, "--json")
    assert code == 0
    for number, session in enumerate(json.loads(out)["sessions"]):
        assert session["steps"] == (2 if number else 7) * -(-session["images"] // 10)


def test_a_wrong_name_waits_for_no_torch_and_a_plan_not_for_what_it_does_not_use():
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", STARTS], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("'krtx' is no config") == 2
    assert "KRT on digits" in found.stdout
