"""``mlcil predict``: which scores are labels, and the forms in which they come."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image

import mlcil
from mlcil.commands import predict
from mlcil.datasets.label_forms import keywords
from mlcil.datasets.labels import read_labels
from mlcil.errors import UserError
from mlcil.tagger.outputs import choose, find_tagger, sidecar

SCORES = {"ant": 0.9, "bee": 0.6, "cat": 0.3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    tiny.write_stage(folder / "saved_models" / "shop" / "session_2.pth")
    tiny.write_stage(folder / "saved_models" / "shop" / "session_10.pth", tiny.CLASSES)
    for number in range(3):
        tiny.write_image(folder / "photos" / "deep" / f"{number} ä.png", seed=number)
    return folder


@pytest.fixture(autouse=True)
def _inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)


def tagged(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    code, out, err = tiny.call(capsys, "predict", "shop", *words, "--precision", "fp32")
    assert code == 0, err
    return out


# -- which scores are labels ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "without"),
    [
        ({"thresholds": None}, ["ant"], 3),
        ({"thresholds": [0.95, 0.6, math.nan]}, ["bee"], 1),
        ({"thresholds": [0.95, 0.6, None]}, ["bee"], 1),
        ({"thresholds": [0.5, 0.5, 0.5]}, ["ant", "bee"], 0),
        ({"thresholds": [0.5, 0.5, 0.5], "threshold": 0.7}, ["ant"], 0),
        ({"thresholds": None, "top": 2}, ["ant", "bee"], 0),
        ({"thresholds": None, "top": 2, "threshold": 0.1}, ["ant", "bee"], 0),
        ({"thresholds": None, "top": 2, "threshold": 0.7}, ["ant"], 0),
        ({"thresholds": None, "threshold": 0.3}, ["ant", "bee", "cat"], 0),
    ],
)
def test_which_scores_are_labels(options: dict[str, Any], expected: list[str], without: int) -> None:
    named, missing = choose(list(SCORES), **options)
    assert [name for name, _ in named(dict(reversed(SCORES.items())))] == expected
    assert missing == without


def test_options_that_choose_nothing() -> None:
    for options, says in (
        ({"top": 0}, "--top is 0; expected at least 1"),
        ({"threshold": math.nan}, "nan; expected a"),
    ):
        with pytest.raises(UserError, match=says):
            choose(list(SCORES), None, **options)  # type: ignore[arg-type]


def test_the_taggers_thresholds_are_used_and_the_fallback_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, err = tiny.call(capsys, "predict", "shop", "photos")
    assert (
        err.count("4 of 4 labels have no threshold in saved_models/shop/session_10.pth; of those the scores from 0.8")
        == 1
    )
    tagger = mlcil.load(find_tagger("shop"))
    tagger.thresholds = [0.0, 2.0, 2.0, math.nan]  # type: ignore[attr-defined,unused-ignore]
    monkeypatch.setattr(mlcil, "load", lambda *_: tagger)
    _, out, err = tiny.call(capsys, "predict", "shop", "photos")
    assert "1 of 4 labels have no threshold" in err
    assert [[label["label"] for label in json.loads(line)["labels"]] for line in out.splitlines()] == [["ant"]] * 3


# -- what is tagged, by what ------------------------------------------------------------------------------


def test_a_run_stands_for_its_last_session(world: Path) -> None:
    last = Path("saved_models/shop/session_10.pth")
    for word in ("shop", "saved_models/shop", "logs/shop", last):
        assert find_tagger(word) == last
    assert find_tagger("none") == Path("none")


def test_several_paths_each_image_once(capsys: pytest.CaptureFixture[str]) -> None:
    out = tagged(capsys, "photos/deep/1 ä.png", "photos", "--top", "1")
    names = [Path(json.loads(line)["image"]).name for line in out.splitlines()]
    assert names == ["1 ä.png", "0 ä.png", "2 ä.png"]


# -- forms ------------------------------------------------------------------------------------------------


def test_all_scores_as_they_are(capsys: pytest.CaptureFixture[str], world: Path) -> None:
    lines = [json.loads(line) for line in tagged(capsys, "photos", "--scores", "--threshold", "0").splitlines()]
    images = [line["image"] for line in lines]
    for line, (_, scores) in zip(lines, mlcil.load(find_tagger("shop"), precision="fp32").predict(images), strict=True):
        assert line["scores"] == scores
        assert line["labels"][0]["score"] == round(max(scores.values()), 6)


def test_csv_is_read_again(capsys: pytest.CaptureFixture[str], world: Path) -> None:
    tagged(capsys, "photos", "--format", "csv", "--top", "2", "--output", "tags.csv", "--scores")
    with open("tags.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "labels", *tiny.CLASSES]
    read = read_labels("tags.csv")
    assert (len(read), read.counts(1).sum()) == (3, 6)
    plain = tagged(capsys, "photos", "--format", "csv", "--top", "2")
    assert [row["labels"] for row in csv.DictReader(io.StringIO(plain))] == [row["labels"] for row in rows]


def test_tasks_of_label_studio(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = json.loads(tagged(capsys, "photos", "--format", "label-studio", "--top", "2", "--scores"))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/deep/0%20%C3%A4.png"
    (prediction,) = tasks[0]["predictions"]
    (result,) = prediction["result"]
    chosen = result["value"]["choices"]
    assert (result["type"], result["from_name"], result["to_name"], len(chosen)) == ("choices", "choice", "image", 2)
    assert prediction["model_version"] == "session_10"
    assert prediction["score"] == tasks[0]["meta"]["scores"][chosen[1]]
    nothing = json.loads(tagged(capsys, "photos", "--format", "label-studio", "--threshold", "1"))
    assert nothing[0]["predictions"] == [{"model_version": "session_10", "score": 0.0, "result": []}]


def test_sidecars_beside_photos_that_stay_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    photos = [tiny.write_image(tmp_path / f"{number}.jpg", seed=number) for number in range(2)]
    before = [(photo.read_bytes(), photo.stat().st_mtime_ns) for photo in photos]
    for top in (3, 1):  # its own it replaces
        assert tagged(capsys, tmp_path, "--format", "xmp", "--top", top) == ""
    assert [(photo.read_bytes(), photo.stat().st_mtime_ns) for photo in photos] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jpg", "0.jpg.xmp", "1.jpg", "1.jpg.xmp"]
    text = sidecar(photos[0]).read_text(encoding="utf-8")
    assert text.count("<rdf:li>") == 1
    with_packet = tmp_path / "x.webp"
    tiny.write_image(with_packet)
    with Image.open(with_packet) as image:
        image.save(with_packet, xmp=text.encode())
    assert keywords(with_packet) == [text.partition("<rdf:li>")[2].partition("<")[0]]  # other readers take it, too


def test_sidecars_of_others_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny.write_image(tmp_path / "0.jpg")
    tiny.write_image(tmp_path / "1.jpg")
    (tmp_path / "1.jpg.xmp").write_text('<x:xmpmeta x:xmptk="darktable"/>')
    code, _, err = tiny.call(capsys, "predict", "shop", tmp_path, "--format", "xmp", "--top", "1")
    assert code == 2
    assert "1.jpg.xmp: another program has written there" in err
    assert not (tmp_path / "0.jpg.xmp").exists()
    code, _, err = tiny.call(capsys, "predict", "shop", tmp_path, "--format", "xmp", "--scores")
    assert (code, "leave --output and --scores out" in err) == (2, True)


def test_a_broken_image_leaves_no_half_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tiny.write_image(tmp_path / "0.png")
    (tmp_path / "1.png").write_text("no image")
    words = ["predict", "shop", tmp_path, "--format", "csv", "--output", tmp_path / "tags.csv"]
    code, _, err = tiny.call(capsys, *words)
    assert (code, "1.png is no image" in err) == (2, True)
    assert not (tmp_path / "tags.csv").exists()
    assert tiny.call(capsys, *words, "--on-bad-image", "skip")[0] == 0
    assert len((tmp_path / "tags.csv").read_text().splitlines()) == 2


def test_ctrl_c_leaves_no_half_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Any:
        yield tmp_path / "0.png", [("ant", 0.5)], SCORES
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "_tagged", stopped)
    code, out, err = tiny.call(capsys, "predict", "shop", "photos", "--output", tmp_path / "tags.jsonl")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "mlcil: interrupted"
    assert list(tmp_path.iterdir()) == []
