"""Released DKT and DAFormer checkpoints become stage checkpoints and back."""

import argparse
from pathlib import Path

import pytest
import tiny
import torch

from mlcil.commands.convert import convert_file
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.interop.official import to_transformer
from mlcil.models.network import build_network

CASES = {"dkt": {}, "daformer": {"edition": "M"}, "daformer S": {"edition": "S"}}


def released(path, case, sizes, **more):
    """What the release saves, of a small network; returns our state dict."""
    torch.manual_seed(0)
    kind = case.split()[0]
    spec = {
        "backbone": {"name": kind, "dim": 24, "depth": 2, "heads": 12},
        "head": {"type": kind, "num_heads": 12, **CASES[case]},
        "image_size": 32,
    }
    network = build_network(spec, sizes).eval()
    official = {f"module.{name}": value for name, value in to_transformer(network.state_dict(), kind).items()}
    options = argparse.Namespace(lr=5e-4, options=["a.yaml"])
    torch.save({"model": {**official, **more}, "epoch": 3, "task_id": len(sizes) - 1, "args": options}, path)
    return network


def names(folder, count):
    (folder / "names.txt").write_text("".join(f"class {i}\n" for i in range(count)))
    return str(folder / "names.txt")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sizes", [[3], [3, 2], [3, 2, 2]])
def test_there_and_back(tmp_path: Path, case, sizes):
    network = released(tmp_path / "checkpoint_1.pth", case, sizes)
    said = convert_file(tmp_path / "checkpoint_1.pth", tmp_path / "stage.pth", names(tmp_path, sum(sizes)))
    assert f"{len(sizes)} session(s), {sum(sizes)} classes" in said
    stage = StageCheckpoint.load(tmp_path / "stage.pth")
    assert stage.classes_per_session == sizes
    assert (stage.method, stage.task) == ("DKT" if case == "dkt" else "DAFormer", "single_label")
    again = stage.build(tmp_path / "stage.pth").eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(images).logits_BC, network(images).logits_BC, rtol=0, atol=0)
    if case == "daformer" or (case == "daformer S" and len(sizes) > 1):
        assert again.spec["head"]["edition"] == CASES[case]["edition"]

    said = convert_file(tmp_path / "stage.pth", tmp_path / "official.pth")
    assert "official layout of D" in said
    wanted = torch.load(tmp_path / "checkpoint_1.pth", weights_only=False)["model"]
    found = torch.load(tmp_path / "official.pth", weights_only=True)["model"]
    assert {f"module.{name}" for name in found} == set(wanted)
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[f"module.{name}"], rtol=0, atol=0, msg=name)


def drop(path, prefix):
    content = torch.load(path, weights_only=False)
    content["model"] = {name: value for name, value in content["model"].items() if not name.startswith(prefix)}
    torch.save(content, path)


BAD = [
    ("dkt", "module.sabs.0.attn.k.weight", [], ("unknown entries", "sabs.0.attn", "DKT checkpoint")),
    ("dkt", "module.general_token", [], ("incomplete", "backbone.general_token")),
    ("dkt", "module.head.", [], ("no heads named",)),
    ("dkt", "module.tabs.norm2", [], ("norm2", "do not fit the network")),
    ("dkt", "nothing", ["--heads", "7"], ("--heads 7", "divisible")),
    ("daformer", "module.keys.0", [], ("incomplete", "head.keys.0.weight", "DAFormer checkpoint")),
    ("daformer", "module.patch_embed.proj.weight", [], ("incomplete", "backbone.stem.weight")),
    ("daformer", "module.duals.0.mlp", [], ("mlp", "do not fit the network")),
]


@pytest.mark.parametrize(("case", "prefix", "words", "expected"), BAD)
def test_bad_files(tmp_path: Path, capsys, case, prefix, words, expected):
    path = tmp_path / "checkpoint_1.pth"
    released(path, case, [3, 2])
    drop(path, prefix)
    code, out, err = tiny.call(capsys, "convert", path, tmp_path / "t.pth", "--classes", names(tmp_path, 5), *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    for word in ("checkpoint_1.pth", *expected):
        assert word in err
    assert not (tmp_path / "t.pth").exists()


def test_an_entry_of_no_layout_is_named(tmp_path: Path, capsys):
    path = tmp_path / "checkpoint_1.pth"
    released(path, "dkt", [3], **{"module.odd": torch.ones(1)})
    code, _, err = tiny.call(capsys, "convert", path, tmp_path / "t.pth", "--classes", names(tmp_path, 3))
    assert code == 2
    assert "1 unknown entries such as module.odd" in err


def test_class_names_are_asked_for(tmp_path: Path, capsys):
    path = tmp_path / "checkpoint_1.pth"
    released(path, "daformer", [3, 2])
    code, _, err = tiny.call(capsys, "convert", path, tmp_path / "t.pth")
    assert code == 2
    assert "5 classes; give their names with --classes FILE" in err
