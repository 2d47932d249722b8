import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import mlcil
from mlcil.commands.convert import convert_file
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import decode
from mlcil.interop.official import to_official
from mlcil.models.data_preprocessor import network_input
from mlcil.models.numerics import resolve_precision


@pytest.fixture(params=["linear", "ica"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    head = tiny.ICA if request.param == "ica" else {"type": "linear"}
    return tiny.write_stage(tmp_path / "session_0.pth", head=head)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("b.jpg", "a.png", "deep/c.JPEG", "d.webp")):
        tiny.write_image(tmp_path / "photos" / name, seed=number)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def test_a_stage_holds_tensors_and_builtins_only(stage: Path) -> None:
    content = torch.load(stage, weights_only=True)
    assert content["format"] == "mlcil-stage-1"
    assert content["classes"] == ["ant", "bee"]


def test_load_rebuilds_the_network_without_a_config(stage: Path, photos: Path) -> None:
    predictor = mlcil.load(str(stage), precision="fp32")
    assert predictor.classes == ["ant", "bee"]
    assert predictor.image_size == tiny.SIZE
    assert predictor.info.run == "tiny"
    image = network_input(torch.from_numpy(decode(photos / "b.jpg", tiny.SIZE)[None].copy()))
    expected = torch.sigmoid(StageCheckpoint.load(stage).build()(image).logits_BC)
    torch.testing.assert_close(predictor.scores(image), expected.detach())


@pytest.mark.filterwarnings("error")
def test_pixels_that_pillow_owns_are_read_without_a_warning(stage: Path, photos: Path) -> None:
    tagger, pixels = mlcil.load(stage, precision="fp32"), decode(photos / "b.jpg", tiny.SIZE)[None].copy()
    expected = tagger.scores(pixels)
    pixels.flags.writeable = False  # as ``np.asarray`` of an image is
    np.testing.assert_array_equal(tagger.scores(pixels), expected)


@pytest.mark.parametrize("head", [{"type": "kbk", "width": 16}, {"type": "csc", "node_channels": 16}])
def test_heads_of_class_features_and_graphs_predict_from_their_file(
    head: dict[str, object], tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.write_stage(tmp_path / "session_0.pth", head=head)
    code, out, err = tiny.call(capsys, "predict", path, photos, "--precision", "fp32", "--threshold", "0")
    assert code == 0, err
    shown = [json.loads(line) for line in out.splitlines()]
    assert len(shown) == 4
    image = network_input(torch.from_numpy(decode(Path(shown[0]["image"]), tiny.SIZE)[None].copy()))
    expected = torch.sigmoid(StageCheckpoint.load(path).build()(image).logits_BC)[0].tolist()
    found = {label["label"]: label["score"] for label in shown[0]["labels"]}
    assert found == pytest.approx({"ant": expected[0], "bee": expected[1]}, abs=1e-5)


def test_batches_do_not_matter(stage: Path, photos: Path) -> None:
    predictor = mlcil.load(stage, precision="fp32")
    paths = sorted(photos.glob("*.*g"))
    one, many = list(predictor.predict(paths, batch_size=1)), list(predictor.predict(map(str, paths), batch_size=16))
    assert [path for path, _ in one] == [path for path, _ in many] == paths
    for (_, left), (_, right) in zip(one, many, strict=True):
        assert left == pytest.approx(right, abs=1e-5)


def test_predict_is_lazy(stage: Path, photos: Path) -> None:
    endless = iter(lambda: photos / "b.jpg", None)
    found = mlcil.load(stage).predict(endless, batch_size=2)
    assert [next(found)[0].name for _ in range(5)] == ["b.jpg"] * 5


def test_command_line(stage: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = tiny.call(capsys, "predict", stage, photos, "--threshold", "0")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.jpg", "d.webp", "c.JPEG"]
    for line in lines:
        scores = [label["score"] for label in line["labels"]]
        assert {label["label"] for label in line["labels"]} == {"ant", "bee"}
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)


def test_a_damaged_photo_ends_the_tags_or_is_named_and_left_out(
    stage: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "c.jpg").write_bytes(b"no image")  # behind a.png and b.jpg
    paths = sorted(photos.glob("?.*g"))
    found = mlcil.load(stage).predict(paths, batch_size=2)
    assert [next(found)[0].name for _ in range(2)] == ["a.png", "b.jpg"]
    with pytest.raises(mlcil.UserError, match=r"c\.jpg is no image"):
        next(found)
    assert [path.name for path, _ in mlcil.load(stage).predict(paths, on_bad_image="skip")] == ["a.png", "b.jpg"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"image skipped: {photos / 'c.jpg'} is no image")
    with pytest.raises(mlcil.UserError, match="on_bad_image is 'ignore'"):
        list(mlcil.load(stage).predict(paths, on_bad_image="ignore"))


def test_a_process_of_its_own_goes_on_behind_a_damaged_photo(tmp_path: Path, photos: Path) -> None:
    (photos / "c.jpg").write_bytes(b"no image")
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    done = tiny.run_cli("predict", stage, photos, "--on-bad-image", "skip", "--threshold", "0.5", cwd=photos)
    assert (done.returncode, done.stderr.count("\n"), len(done.stdout.splitlines())) == (0, 1, 4)
    assert f"image skipped: {photos / 'c.jpg'} is no image" in done.stderr


def test_command_line_top_and_threshold(stage: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = tiny.call(capsys, "predict", stage, photos / "b.jpg", "--top", "1")
    assert len(json.loads(out)["labels"]) == 1
    _, out, _ = tiny.call(capsys, "predict", stage, photos / "b.jpg", "--threshold", "1")
    assert json.loads(out)["labels"] == []


def test_a_converted_checkpoint_predicts_the_same(tmp_path: Path, photos: Path) -> None:
    stage = tiny.write_stage(tmp_path / "s.pth", head=tiny.ICA)
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    assert "official KRT layout" in convert_file(stage, tmp_path / "official.pth")
    assert "2 classes" in convert_file(tmp_path / "official.pth", tmp_path / "t.pth", str(tmp_path / "names.txt"), 4)
    left, right = (next(mlcil.load(path).predict([photos / "b.jpg"]))[1] for path in (stage, tmp_path / "t.pth"))
    assert left == right


def test_a_release_without_counters_converts(tmp_path: Path, photos: Path) -> None:
    stage = tiny.write_stage(tmp_path / "s.pth", ("ant", "bee"), tiny.ICA)
    content = to_official(torch.load(stage, weights_only=True)["state_dict"])
    torch.save({k: v for k, v in content.items() if "num_batches" not in k}, tmp_path / "official.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    convert_file(tmp_path / "official.pth", tmp_path / "t.pth", str(tmp_path / "names.txt"), 4)
    left, right = (next(mlcil.load(path).predict([photos / "b.jpg"]))[1] for path in (stage, tmp_path / "t.pth"))
    assert left == right


def test_command_line_says_nothing_but_labels(tmp_path: Path, photos: Path) -> None:
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    done = tiny.fork_cli("predict", stage, photos, "--threshold", "0.5", cwd=photos)
    assert (done.returncode, done.stderr) == (0, "")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4


def test_precision(stage: Path) -> None:
    images = torch.rand(3, 3, tiny.SIZE, tiny.SIZE)
    exact = mlcil.load(stage, precision="fp32").scores(images)
    rough = mlcil.load(stage, precision="bf16").scores(images)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.02)
    assert mlcil.load(stage).dtype == resolve_precision("auto", "cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "tpu9"}, "device 'tpu9' cannot be used"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"precision": "int8"}, "precision 'int8' is unknown"),
        ({"precision": "fp16"}, "'fp16' does not train on the CPU"),
    ],
)
def test_device_or_precision_that_is_not_there(stage: Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(mlcil.UserError, match=sentence):
        mlcil.load(stage, **options)


def test_scores_that_are_no_numbers_are_refused(stage: Path, photos: Path) -> None:
    tagger = mlcil.load(stage, precision="fp32")
    found = tagger.predict([photos / "a.png", photos / "b.jpg"], batch_size=2)
    scores = tagger.scores

    def wrong(images: Any) -> Any:
        result = scores(images)
        result = result.clone() if isinstance(result, torch.Tensor) else result.copy()
        result[1, 0] = np.nan
        return result

    tagger.scores = wrong  # type: ignore[method-assign]
    assert next(found)[0].name == "a.png"
    with pytest.raises(UserError, match=r"b\.jpg: the tagger gives scores that are no numbers"):
        next(found)
