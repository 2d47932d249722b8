"""A feature extractor in an ONNX file under a tagger: a random convolution, whose graph is made here."""

import json

import numpy as np
import onnx
import pytest
import torch
from extractor import WEIGHT, extractor
from onnx import TensorProto, helper
from tiny import call, stage_content, write_image

import mlcil
from mlcil.engine.config import load_config
from mlcil.errors import UserError
from mlcil.images import decode
from mlcil.models.backbones import build_backbone
from mlcil.models.onnx_backbone import OnnxBackbone, describe
from mlcil.tagger.stage import load_stage

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def backbone_of(path, size=32, **given):
    description, size = describe(path, size, given)
    name = description.pop("name")
    made = build_backbone(name, size, **description)
    made.put(path.read_bytes())
    return made


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Photos of red and of noise with two lists of them; the last one is learnt later."""
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mlcil.tagger.extend.FOLDS", 2)
    monkeypatch.setattr("mlcil.tagger.photos.FOLDS", 2)
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        write_image(tmp_path / f"{number}.png", number)
    for name in ("red", "blue"):
        rows = "".join(f"{number}.png,{int(number % 3 == 0)}\n" for number in range(24))
        (tmp_path / f"{name}.csv").write_text(f"file,{name}\n{rows}")
    return tmp_path


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("pooled", [False, True], ids=["maps", "features"])
@pytest.mark.parametrize("batch", ["N", 1, 2, 4])
def test_every_form_gives_the_same_maps(tmp_path, last, pooled, batch):
    path = extractor(tmp_path / "e.onnx", batch, last=last, pooled=pooled, mean=str(list(MEAN)), std=str(list(STD)))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shift, scale = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, STD))
    expected = torch.conv2d((images - shift) / scale, torch.from_numpy(WEIGHT), stride=8).relu()
    expected = expected.mean((2, 3), keepdim=True) if pooled else expected
    backbone = backbone_of(path)
    (found,) = backbone(images)
    assert backbone.out_channels == 6
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    (other,) = backbone_of(path, mean=[0.0] * 3, std=[1.0] * 3)(images)
    assert not torch.allclose(other, found)


def test_size_and_normalisation_come_from_the_file_or_stand_in_the_guide(tmp_path):
    described, size = describe(extractor(tmp_path / "e.onnx", side=48), 32, {})
    assert (size, described["grid"]) == (48, [6, 6])
    np.testing.assert_allclose(described["mean"], [0.485, 0.456, 0.406])
    config = load_config("lwf data=voc", [f"network.backbone.name={str(tmp_path / 'e.onnx')!r}"])
    assert (config.network.image_size, config.network.frozen_backbone) == (48, True)
    assert config.network.backbone.to_dict() == described


@pytest.mark.parametrize("pooled", [False, True], ids=["maps", "features"])
def test_a_tagger_on_it_is_one_file_and_goes_everywhere(place, capsys, pooled):
    path = extractor(place / "e.onnx", pooled=pooled)
    words = ["tag", "red.csv", "--backbone", path, "--out", "one.tagger", "network.image_size=32"]
    code, _, err = call(capsys, *words)
    assert (code, err) == (0, "")
    path.unlink()
    code, out, err = call(capsys, "extend", "one.tagger", "blue.csv", "--out", "two.tagger")
    assert (code, err) == (0, "")
    assert "scores of the 1 old labels: largest difference 0" in out
    assert call(capsys, "check", "one.tagger", "two.tagger", "--on", "red.csv")[0] == 0
    assert "backbone    onnx, 32 pixels a side" in call(capsys, "info", "two.tagger")[1]
    tagger, image = mlcil.load("two.tagger", precision="fp32"), decode(place / "0.png", 32)
    for form in ("onnx", "safetensors"):
        code, out, err = call(capsys, "export", "two.tagger", f"out.{form}")
        assert (code, err) == (0, "")
        assert "largest difference to PyTorch" in out
        other = mlcil.load(f"out.{form}", precision="fp32")
        assert other.classes == ["red", "blue"]
        np.testing.assert_allclose(other.scores(image[None]), tagger.scores(image[None]), atol=1e-5)


def test_a_method_of_a_paper_trains_its_head_on_it(place, capsys):
    rows = "".join(f"{number}.png,{number % 2},{(number // 2) % 2}\n" for number in range(24))
    (place / "both.csv").write_text(f"file,red,blue\n{rows}")
    name = extractor(place / "e.onnx").name
    words = [
        "train",
        "krt",
        "data=both.csv",
        "protocol=B0-C1",
        f"network.backbone.name={name}",
        "network.image_size=32",
    ]
    words += ["network.head.embed_dim=16", "train_transform.cutout=0.0", "train_transform.randaugment=False"]
    words += ["engine=torch", "name=run", "train_dataloader.num_workers=0", "test_dataloader.num_workers=0"]
    code, _, err = call(capsys, *words, "train_cfg.max_epochs=1")
    assert code == 0, err
    assert (
        "features by onnxruntime, since this backbone is an ONNX graph" in (place / "logs/run/log/log.txt").read_text()
    )
    (place / name).unlink()
    code, out, err = call(capsys, "predict", "run", "0.png", "--threshold", "0")
    assert code == 0, err
    assert [label["label"] for label in json.loads(out)["labels"]] in (["red", "blue"], ["blue", "red"])


def external(path):
    model = onnx.load(extractor(path))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


SECOND = helper.make_tensor_value_info("second", TensorProto.FLOAT, [1])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_text("nothing"), "cannot be read as an ONNX graph"),
        (lambda path: extractor(path, 10**9), "takes 1000000000 images at once; expected any number, or one of 1 to"),
        (lambda path: None, "expected a feature extractor as ONNX"),
        (external, "cannot be read as an ONNX graph"),
        (lambda path: extractor(path, extra=[SECOND]), "it has 2 inputs and 1 outputs"),
        (lambda path: extractor(path, side=(32, 48)), "its images are 32 x 48 pixels"),
        (lambda path: extractor(path, side=(4, 4)), "does not take images of (3, 4, 4)"),
        (lambda path: extractor(path, classes='["ant"]'), "so it is a tagger"),
        (lambda path: extractor(path, mean="[1, 2]"), "mean of bad.onnx is [1, 2]; expected three numbers"),
    ],
)
def test_files_that_are_refused(place, capsys, make, sentence):
    make(place / "bad.onnx")
    code, _, err = call(
        capsys, "tag", "red.csv", "--backbone", "bad.onnx", "--out", "no.tagger", "network.image_size=32"
    )
    assert (code, err.count("\n")) == (2, 1), err
    assert sentence in err
    assert not (place / "no.tagger").exists()


def test_words_that_do_not_go_with_it(place, capsys):
    extractor(place / "e.onnx", batch=1)
    words = ["tag", "red.csv", "--backbone", "e.onnx", "--out", "one.tagger", "network.image_size=32"]
    for more, sentence in (
        (["--weights", "w.pth"], "--weights does not go with e.onnx, which holds its own"),
        (["compile=True"], "compile=True does not go with a backbone in an ONNX file"),
        (["network.backbone.layers=[1]"], "unknown key 'layers' in network.backbone of an ONNX file"),
        (["network.backbone.mean=[0.5]"], "mean of e.onnx is [0.5]; expected three numbers"),
    ):
        code, _, err = call(capsys, *words, *more)
        assert code == 2
        assert sentence in err
    assert call(capsys, *words)[0] == 0
    code, _, err = call(capsys, "export", "one.tagger", "out.onnx")
    assert code == 2
    assert "takes 1 images at once and no other number" in err


def test_a_tagger_with_another_graph_than_it_says(place, capsys):
    backbone = backbone_of(extractor(place / "e.onnx"))
    with pytest.raises(UserError, match="needs gradients of images"):
        backbone(torch.zeros(1, 3, 32, 32, requires_grad=True))
    assert isinstance(backbone, OnnxBackbone)
    extractor(place / "other.onnx", pooled=True)
    content = stage_content()
    description, _ = describe(place / "e.onnx", 32, {})
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    head = {"head.classifiers.0.weight": torch.zeros(2, 6), "head.classifiers.0.bias": torch.zeros(2)}
    content |= {
        "network": {"backbone": description, "head": {"type": "session_linear", "bias": True}, "image_size": 32}
    }
    content |= {"state_dict": {**state, **head}}
    torch.save(content, place / "good.pth")
    assert load_stage(place / "good.pth").scores(np.zeros((1, 32, 32, 3), np.uint8)).tolist() == [[0.5, 0.5]]
    graph = content["state_dict"]["backbone.graph"]
    for bad in (
        graph[:-5],
        graph.float(),
        graph * 0,
        torch.from_numpy(np.frombuffer((place / "other.onnx").read_bytes(), np.uint8).copy()),
    ):
        content["state_dict"]["backbone.graph"] = bad
        length = divmod(len(bad), 2**20)
        for told in (description["length"], list(length)):
            content["network"]["backbone"] = {**description, "length": told}
            torch.save(content, place / "bad.pth")
            code, _, err = call(capsys, "predict", "bad.pth", "0.png")
            if code == 0:  # whole numbers as floats are the same graph
                assert bad.is_floating_point()
            else:
                assert (code, err.count("\n")) == (2, 1), err
