"""The method that docs/add_a_method.md adds works as the page says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import call, coco_folder, write_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add_a_method.md"
PYTHON = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def experiment(tmp_path):
    """The page's method and config on a tiny data set instead of the demo's."""
    method, config = PYTHON
    (tmp_path / "less_forgetting.py").write_text(method)
    base = write_config(tmp_path, coco_folder(tmp_path / "coco"))
    path = tmp_path / "mine.py"
    path.write_text(config.replace('based_on = "demo/finetune"', f"_base_ = [{base.name!r}]"))
    return path


def test_the_method_of_the_page_trains_and_freezes_old_classifiers(experiment, tmp_path, capsys):
    assert call(capsys, "train", experiment, "--name", "mine")[0] == 0
    results = json.loads((tmp_path / "logs" / "mine" / "results.json").read_text())
    assert len(results["sessions"]) == 2
    assert np.isfinite(results["sessions"][1]["mAP"]["seen"])
    log = (tmp_path / "logs" / "mine" / "log" / "log.txt").read_text()
    assert re.search(r"loss_features: \d", log)
    first, second = (
        torch.load(tmp_path / "saved" / "mine" / f"session_{t}.pth", weights_only=True)["state_dict"] for t in (0, 1)
    )
    name = "head.classifiers.0.weight"
    assert torch.equal(first[name], second[name])
    stem = next(key for key in first if key.startswith("backbone.") and first[key].ndim == 4)
    assert not torch.equal(first[stem], second[stem])


def test_the_example_is_short():
    code = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('plugins = ["missing.py"]', "missing.py does not exist; expected a python file"),
        ('plugins = "less_forgetting.py"', "expected a list of python files"),
        ('plugins = ["broken.py"]', "broken.py cannot be imported (ZeroDivisionError"),
        ('plugins = ["notes.txt"]', "expected a name that ends with .py"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(experiment, capsys, line, says):
    (experiment.parent / "broken.py").write_text("1 / 0\n")
    (experiment.parent / "notes.txt").write_text("")
    experiment.write_text(experiment.read_text().replace('plugins = ["less_forgetting.py"]', line))
    code, _, err = call(capsys, "plan", experiment)
    assert code == 2
    assert says in err
