"""``mlcil data``: what was understood of labels."""

import json
from pathlib import Path

import pytest
import tiny

from mlcil.commands import data


def labels(folder: Path, text: str) -> Path:
    for number in range(4):
        tiny.write_image(folder / f"{number}.png", seed=number)
    (folder / "3.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "l.csv").write_text(text)
    return folder / "l.csv"


def test_what_stands_in_the_way_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "file,labels\n0.png,Cat\n1.png,cat;bicycle\n2.png,bicyle\n3.png,\nx.png,cat\n"
    path = labels(tmp_path, text)
    (tmp_path / "2.png").write_text("no image")
    code, out, err = tiny.call(capsys, "data", path)
    assert (code, err) == (1, "")
    for line in (
        "l.csv: CSV, a list of labels a photo",
        "3 photos, 4 labels",
        "    Cat    1   0        2",
        "    all    4   0        8",
        "no photo is known to lack Cat, bicycle, bicyle, cat: say which labels somebody has looked for",
        "photos that are there more than once, each counts once with the labels of all: 1",
        "0.png = ",
        "photos that are missing: 1\n  x.png\n",
        "photos that cannot be read: 1\n",
        "2.png is no image that can be read",
        "labels that differ by case, blanks or hyphens only: 1\n  Cat / cat\n",
        "labels that differ by a few letters: 1\n  bicycle / bicyle\n",
    ):
        assert line in out
    monkeypatch.setattr(data, "MANY", 1)  # by several processes, the same
    assert tiny.call(capsys, "data", path)[1] == out


def test_labels_that_are_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labels(tmp_path, "file,ant,bee,split\n0.png,1,0,train\n1.png,,1,test\n2.png,,,train\n")
    code, out, _ = tiny.call(capsys, "data", path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["labels"] == [
        {"label": "ant", "yes": 1, "no": 0, "unknown": 2},
        {"label": "bee", "yes": 1, "no": 1, "unknown": 1},
    ]
    assert (facts["photos"], facts["photos_for_testing"], facts["photos_without_a_known_label"]) == (3, 1, 1)
    assert facts["unreadable"] == {}
    code, out, _ = tiny.call(capsys, "data", path, "--reviewed", "all", "--photos", tmp_path)
    assert (code, "unknown" in out, "known to lack" in out) == (0, True, False)
    assert "1 photos are for testing" in out


def test_a_mistake_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = tiny.call(capsys, "data", tmp_path / "none.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "none.csv does not exist" in err
