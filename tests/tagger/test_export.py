"""What a tagger is outside of PyTorch: the same scores, and everything that a reader needs."""

import json
import math
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import tiny
import torch

import mlcil
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.inference import export as inference
from mlcil.system.onnx_graph import Graph
from mlcil.tagger.export import Judged, export, onnx_content
from mlcil.tagger.onnx_file import onnx_tagger
from mlcil.tagger.stage import StageTagger

CENTRE = asdict(Fit("centre", 70, "bicubic"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module", autouse=True)
def once():
    """Torch's exporter takes seconds: a network goes through it once, and gets other metadata from then on."""
    known = {}

    def to_onnx(module, image_size, output, metadata):
        key = sum(float(value.double().sum()) for value in module.state_dict().values())
        if key not in known:
            known[key] = inference.to_onnx(module, image_size, output)
        model = onnx.load_from_string(known[key])
        onnx.helper.set_model_props(model, metadata)
        return model.SerializeToString()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlcil.tagger.export.to_onnx", to_onnx)
        yield


@pytest.fixture(scope="module")
def photos(folder):
    return [tiny.write_image(folder / "photos" / f"{k}.png", k) for k in range(20)]


@pytest.fixture(scope="module")
def stage(folder):
    stage = tiny.stage(head=tiny.ICA)
    stage.thresholds, stage.fit = [0.25, math.nan], CENTRE
    stage.logit_correction = torch.tensor([[2.0, 0.5], [1.0, -0.25]])
    stage.save(folder / "session_0.pth")
    return folder / "session_0.pth"


@pytest.fixture(scope="module")
def exported(stage, photos, folder):
    return export(stage, folder / "out.onnx", calibrate=photos), folder / "out.onnx"


@pytest.mark.parametrize("ending", ["onnx", "safetensors"])
def test_the_file_is_the_same_tagger(stage, photos, folder, exported, ending):
    lines, path = exported
    if ending == "safetensors":
        path = folder / "out.safetensors"
        lines = export(stage, path, calibrate=photos)
    assert lines[0].startswith("scores of 20 images: largest difference to PyTorch ")
    one, other = mlcil.load(stage, precision="fp32"), mlcil.load(path, precision="fp32")
    assert other.classes == one.classes
    assert (other.image_size, other.fit, other.task) == (tiny.SIZE, Fit.of(CENTRE), "multi_label")
    np.testing.assert_array_equal(other.thresholds, [0.25, math.nan])
    for (_, left), (_, right) in zip(one.predict(photos), other.predict(photos, batch_size=3), strict=True):
        assert left == pytest.approx(right, abs=1e-5)


def test_no_torch_is_imported(exported, photos, stage):
    code = (
        "import sys; from mlcil.cli import main\n"
        f"assert main(['predict', {str(exported[1])!r}, {str(photos[0])!r}, '--scores']) == 0\n"
        "heavy = {'torch', 'torchvision', 'mmengine', 'timm', 'onnx', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert scores == pytest.approx(next(mlcil.load(stage, precision="fp32").predict(photos))[1], abs=1e-5)


def test_any_engine_for_a_checkpoint(stage, photos, exported, folder):
    other = mlcil.load(stage, engine="onnxruntime")
    assert next(other.predict(photos))[1] == next(mlcil.load(exported[1]).predict(photos))[1]
    assert isinstance(mlcil.load(stage), StageTagger)
    with pytest.raises(UserError, match="is an ONNX file, which onnxruntime computes"):
        mlcil.load(exported[1], engine="torch")


def test_eight_bits(stage, photos, folder):
    cells = np.zeros((20, 3), np.int8)
    cells[:, 1] = -1
    scores = [scores for _, scores in mlcil.load(stage, precision="fp32").predict(photos)]
    best = np.argsort([-s["ant"] for s in scores])[:5]
    cells[best, 0] = 1  # the float tagger is always right
    judged = Judged(photos, ("ant", "bee", "unknown to the tagger"), cells)
    lines = export(stage, folder / "int8.onnx", True, photos, judged, max_drop=100)
    assert lines[1].startswith("int8: scores differ by 0.")
    assert lines[2].startswith("mAP 100.00 in fp32, ")
    small = mlcil.load(folder / "int8.onnx")
    assert (small.info["precision"], small.classes) == ("int8", ["ant", "bee"])
    before = (folder / "int8.onnx").read_bytes()
    with pytest.raises(UserError, match=r"int8 costs -?[\d.]+ points, more than -101; calibrate with more photos"):
        export(stage, folder / "int8.onnx", True, photos, judged, max_drop=-101)
    assert (folder / "int8.onnx").read_bytes() == before
    with pytest.raises(UserError, match="show no class of the tagger"):
        export(stage, folder / "int8.onnx", True, photos, Judged(photos, ("fox",), cells[:, :1]))


def test_one_class_an_image_and_a_timm_backbone(folder, monkeypatch):
    monkeypatch.setattr(tiny, "BACKBONE", {"name": "test_efficientnet"})
    stage = tiny.stage(head={"type": "linear"})
    stage.task = "single_label"
    stage.save(folder / "timm.pth")
    tagger = mlcil.load(folder / "timm.pth", precision="fp32")
    images = np.random.default_rng(0).integers(0, 256, (3, tiny.SIZE, tiny.SIZE, 3), np.uint8)
    found = onnx_tagger(onnx_content(tagger), folder / "timm.onnx").scores(images)
    np.testing.assert_allclose(found, tagger.scores(images), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def rewritten(path, target, **words):
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    kept.update({name: json.dumps(value) for name, value in words.items()})
    onnx.helper.set_model_props(model, {name: value for name, value in kept.items() if value != "null"})
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"format": None}, "is an ONNX file without the metadata of a tagger"),
        ({"format": "mlcil-onnx-99"}, "without the metadata of a tagger"),
        ({"classes": ["ant", "ant"]}, "two of its classes have the same name"),
        ({"classes": ["ant"], "thresholds": None}, r"names 1 classes, but the scores of an image are \(1, 2\)"),
        ({"classes": 7}, "its classes are no list of names"),
        ({"thresholds": [0.5]}, "its thresholds are no list of 2 numbers"),
        ({"image_size": 10**9}, "its image_size is 1000000000"),
        ({"image_size": 65}, "its graph does not take an image of its size"),
        ({"fit": {"kind": "round"}}, "fit is 'round'"),
    ],
)
def test_files_that_are_no_taggers(exported, folder, words, sentence):
    path = rewritten(exported[1], folder / "edited.onnx", **words)
    with pytest.raises(UserError, match=sentence) as caught:
        mlcil.load(path)
    assert str(path) in str(caught.value)


def test_damaged_files_and_wrong_wishes(exported, stage, folder, capsys):
    (folder / "cut.onnx").write_bytes(exported[1].read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.onnx cannot be read as an ONNX graph"):
        mlcil.load(folder / "cut.onnx")
    with pytest.raises(UserError, match=r"none\.onnx cannot be read"):
        mlcil.load(folder / "none.onnx")
    (folder / "cut.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(UserError, match=r"cut\.safetensors cannot be read as safetensors"):
        mlcil.load(folder / "cut.safetensors")
    for words, sentence in (
        (("out.pth",), "ends in neither .onnx nor .safetensors"),
        (("out.safetensors", "--int8"), "--int8 is for an .onnx file"),
        (("new.onnx", "--int8"), "name a folder of some hundred with --calibrate"),
    ):
        target, *options = words
        code, out, err = tiny.call(capsys, "export", stage, folder / target, *options)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert sentence in err
    assert not (folder / "new.onnx").exists()


def test_nothing_beside_the_file_is_opened(exported, folder, monkeypatch):
    """A graph may name files for its weights, and the command may be typed beside them."""
    monkeypatch.chdir(folder)
    model = onnx.load(exported[1])
    onnx.save(model, folder / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(UserError, match="cannot be read as an ONNX graph"):
        Graph((folder / "outside.onnx").read_bytes(), "outside.onnx")
