"""Released checkpoints of R-DFCIL and ABD become stage checkpoints that predict."""

import pytest
import tiny
import torch
from dfcil_fixtures import fixtures

import mlcil
from mlcil.commands.convert import convert_file
from mlcil.datasets.augment import NORMALISATIONS
from mlcil.interop.official import from_abd, from_rdfcil


def drawn(shapes):
    """Weights of the shapes; running variances are positive."""
    torch.manual_seed(0)
    return {name: 0.1 * torch.randn(shape) if len(shape) > 1 else torch.rand(shape) for name, shape in shapes.items()}


def rdfcil(name, width):
    heads = {f"head.classifiers.{t}.weight": [size, width] for t, size in enumerate((3, 2))}
    return drawn({**fixtures("rdfcil").shapes[f"{name}.backbone"], **heads})


def names(folder, count):
    (folder / "names.txt").write_text("".join(f"class {i}\n" for i in range(count)))
    return str(folder / "names.txt")


@pytest.mark.parametrize(
    ("name", "width", "size", "wanted", "mean"),
    [("resnet32", 64, None, 32, "cifar100"), ("resnet32", 64, 64, 64, "tiny_imagenet"),
     ("resnet18", 512, None, 224, "imagenet")],
)  # fmt: skip
def test_rdfcil(tmp_path, name, width, size, wanted, mean):
    state = rdfcil(name, width)
    # a Lightning file: the module's other parts are left out
    torch.save({"state_dict": {**state, "rkd.embed1.weight": torch.zeros(2, 2)}, "epoch": 3}, tmp_path / "last.ckpt")
    said = convert_file(tmp_path / "last.ckpt", tmp_path / "stage.pth", names(tmp_path, 5), size=size)
    assert "stage checkpoint of RDFCIL with 2 session(s), 5 classes" in said
    tagger = mlcil.load(tmp_path / "stage.pth")
    spec = tagger.network.spec
    assert (spec["backbone"]["name"], spec["image_size"]) == (f"{name}_rdfcil", wanted)
    assert spec["backbone"]["mean"] == list(NORMALISATIONS[mean][0])
    content = torch.load(tmp_path / "stage.pth", weights_only=True)["state_dict"]
    for key, value in from_rdfcil(state)[0]["network"].items():
        torch.testing.assert_close(content[key], value, rtol=0, atol=0)
    torch.testing.assert_close(tagger.scores(torch.rand(2, 3, wanted, wanted)).sum(1), torch.ones(2))


@pytest.mark.parametrize("name", ["resnet32", "resnet18"])
def test_abd_shows_the_classes_that_have_names(tmp_path, name):
    state = drawn(fixtures("abd").shapes[name])
    torch.save(state, tmp_path / "class.pth")
    said = convert_file(tmp_path / "class.pth", tmp_path / "stage.pth", names(tmp_path, 3))
    assert "stage checkpoint of ABD with 1 session(s), 3 classes" in said
    tagger = mlcil.load(tmp_path / "stage.pth")
    assert tagger.classes == ["class 0", "class 1", "class 2"]
    assert tagger.network.spec["head"] == {"type": "full_linear", "num_classes": len(state["last.bias"])}
    assert tagger.scores(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    content = torch.load(tmp_path / "stage.pth", weights_only=True)["state_dict"]
    for key, value in from_abd(state)[0].items():
        torch.testing.assert_close(content[key], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "words", "sentence"),
    [
        ({}, ("--size", "48"), "--size is 48; expected one of 32, 64, 224"),
        ({"backbone.odd": torch.ones(1)}, (), "1 unknown entries such as backbone.odd; expected a R-DFCIL checkpoint"),
        ({"backbone.stage_3.blocks.9.conv_a.weight": torch.ones(64, 64, 3, 3)}, (), "no network of R-DFCIL has"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, capsys, change, words, sentence):
    torch.save({**rdfcil("resnet32", 64), **change}, tmp_path / "last.ckpt")
    command = ("convert", tmp_path / "last.ckpt", tmp_path / "t.pth", "--classes", names(tmp_path, 5), *words)
    code, _, err = tiny.call(capsys, *command)
    assert code == 2
    assert sentence in err
    assert not (tmp_path / "t.pth").exists()


def test_the_way_back_is_refused(tmp_path, capsys):
    torch.save(rdfcil("resnet32", 64), tmp_path / "last.ckpt")
    convert_file(tmp_path / "last.ckpt", tmp_path / "stage.pth", names(tmp_path, 5))
    code, _, err = tiny.call(capsys, "convert", tmp_path / "stage.pth", tmp_path / "back.pth")
    assert code == 2
    assert "is a stage of RDFCIL, which is not converted back" in err
    assert not (tmp_path / "back.pth").exists()
