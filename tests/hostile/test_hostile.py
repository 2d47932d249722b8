"""Bad files as data: each gives its sentence, and nothing is written, run or taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_files as f
import numpy as np
import pytest
import tiny
import torch
from refusals import case, check_refused

from mlcil.errors import UserError
from mlcil.images import load_rgb
from mlcil.system import lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and links")
READ = "cannot be read as tensors"
USABLE = "is no usable stage checkpoint"
MORE = "far more values than its 98 weights need"
CHECKPOINTS = [
    case("missing", lambda folder: folder / "s.pth", "s.pth does not exist"),
    case("folder", f.a_folder("s.pth"), "s.pth is a folder"),
    case("pipe", f.a_pipe("s.pth"), "s.pth is no regular file"),
    case("device", f.a_device("s.pth"), "s.pth is no regular file"),
    case("link to itself", f.a_link_to_itself("s.pth"), "s.pth cannot be read", "symbolic links"),
    case("empty", f.content("s.pth", ""), "s.pth", READ, "cut off or another format"),
    case("text", f.content("s.pth", "weights"), "s.pth", READ, "cut off or another format"),
    case("zeros", f.content("s.pth", b"\0" * 5000), "s.pth", READ),
    case("an archive of nothing", f.content("s.pth", b"PK\x05\x06" + b"\0" * 18), "s.pth", READ),
    case("a tenth", f.cut(0.1), "s.pth", READ, "download it again"),
    case("a half", f.cut(0.5), "s.pth", READ, "download it again"),
    case("all but a little", f.cut(0.999), "s.pth", READ, "download it again"),
    case("a pickle with code", f.pickled(os.mkdir, "harm"), "s.pth", "posix.mkdir", "was not run"),
    case("zipped code", f.with_code, "s.pth", "posix.mkdir", "was not run"),
    case("a pickle that evaluates", f.pickled(eval, "1"), "s.pth", "eval", "was not run"),
    case("a hundred GB of bytes", f.pickled(bytearray, 10**11), "s.pth", "bytearray", "no checkpoint needs"),
    case("the same zipped", f.saved(lambda: f.Call(bytearray, 10**11)), "s.pth", "bytearray"),
    case("the same in the older layout", f.saved(lambda: f.Call(bytearray, 10**11), False), "s.pth", "bytearray"),
    case("compressed", f.deflated, "d.pth", "compressed archive", "torch.save never writes"),
    case("entries that claim gigabytes", f.long_entries, "s.pth", READ),
    case("a storage that claims terabytes", f.long_storage, "s.pth", "storages claim 10000000000000 values"),
    case("a shape without values", f.saved(lambda: {"a": torch.ones(1).expand(10**12)}), "(1000000000000,)", "4 bytes"),
    case("a sparse tensor", f.saved(lambda: torch.ones(1).to_sparse()), "_rebuild_sparse", "no checkpoint needs"),
    case("a tensor without values", f.saved(lambda: torch.ones(9, device="meta")), "s.pth", READ),
    case("lists in lists", f.saved(f.lists), "s.pth", READ, "more than 50000000 entries"),
    case("a tensor", f.saved(lambda: torch.ones(3)), "s.pth is no stage checkpoint"),
    case("a number", f.saved(lambda: 3), "s.pth is no stage checkpoint"),
    case("another format", f.stage(format="mlcil-stage-9"), "s.pth is no stage checkpoint", "mlcil-stage-1"),
    case("not a number", f.poisoned(float("nan")), USABLE, "head.linear.weight holds values that are not finite"),
    case("infinite", f.poisoned(float("inf")), USABLE, "head.linear.weight holds values that are not finite"),
    case("no weights", f.stage(state_dict=None), USABLE, "no dictionary of tensors"),
    case("words for weights", f.stage(state_dict={"head.linear.weight": "x"}), USABLE, "no dictionary of tensors"),
    case("classes are a number", f.stage(classes=3), USABLE, "its classes are 3", "a list of names"),
    case("classes are numbers", f.stage(classes=[1, 2]), USABLE, "[1, 2]", "a list of names"),
    case("fewer names than outputs", f.stage(classes=["ant"]), USABLE, "names 1 classes", "sessions have 2"),
    case("no session", f.stage(classes_per_session=None), USABLE, "classes_per_session is None"),
    case("a negative session", f.stage(classes_per_session=[3, -1]), USABLE, "[3, -1]", "positive numbers"),
    case("a billion classes", f.stage(classes_per_session=[10**9]), USABLE, "sessions have 1000000000"),
    case("no network", f.stage(network=None), USABLE, "its network is None"),
    case("network without head", f.stage(network={"image_size": 64}), "s.pth", "cannot be built"),
    case("image of a billion pixels a side", f.of_network(image_size=10**9), USABLE, "image_size is 1000000000"),
    case("image size is a word", f.of_network(image_size="big"), USABLE, "image_size is 'big'"),
    case("wider than memory", f.of_network(backbone={**tiny.BACKBONE, "width": 300.0}), "s.pth", MORE),
    case("deeper than time", f.of_network(backbone={**tiny.BACKBONE, "layers": [10**9] * 4}), USABLE, "layers=[10000"),
    case("negative width", f.of_network(backbone={**tiny.BACKBONE, "width": -1}), "s.pth", "cannot be built"),
    case("tokens wider than memory", f.of_network(head={**tiny.ICA, "embed_dim": 2**40}), USABLE, "number 1.09951e+12"),
    case("tokens as wide as memory", f.of_network(head={**tiny.ICA, "embed_dim": 2**16}), "s.pth", MORE),
    case("a little wider", f.of_network(backbone={**tiny.BACKBONE, "width": 0.5}), "s.pth", "size mismatch"),
    case("a little wider tokens", f.of_network(head={**tiny.ICA, "embed_dim": 64}), "s.pth", "do not fit"),
    case("stages of millions", f.of_network(backbone={"name": "resnet32_abd", "blocks": [10**7, 1]}), "number 1e+07"),
    case("a hundred million blocks", f.of_network(backbone={"name": "dkt", "depth": 10**8}), USABLE, "number 1e+08"),
    case("a million blocks", f.of_network(backbone={"name": "dkt", "depth": 10**6}), "s.pth", MORE),
    case("a giant of timm", f.of_network(backbone={"name": "vit_giant_patch14_224"}), "s.pth", MORE),
    case("a network of the web", f.of_network(backbone={"name": "hf-hub:a/b"}), "cannot be built", "'hf-hub:a/b'"),
    case("no number of heads", f.of_network(head={**tiny.ICA, "num_heads": 0}), "s.pth", "cannot be built"),
    case("two means", f.of_network(backbone={"name": "resnet10t", "mean": [0.0, 1.0]}), "s.pth", "cannot be built"),
    case("a mean that is no number", f.of_network(backbone={"name": "resnet10t", "mean": [f.NAN] * 3}), "number nan"),
    case("a backbone of lists", f.of_network(backbone={"name": f.lists(6)}), USABLE, "more than 1000 values"),
    case("layers of lists", f.of_network(backbone={**tiny.BACKBONE, "layers": f.lists(6)}), USABLE, "layers=[[["),
    case("a head of lists", f.of_network(head={"type": f.lists(6)}), USABLE, "more than 1000 values"),
    case("a head of a long word", f.of_network(head={"type": "x" * 10**6}), USABLE, "a word of 1000000 characters"),
    case("a head of tensors", f.of_network(head={"type": torch.ones(1)}), USABLE, "of the type Tensor"),
    case("network of lists", f.stage(network=f.lists(6)), USABLE, "its network is [[["),
    case("classes of lists", f.stage(classes=f.lists(6)), USABLE, "its classes are [[["),
    case("sessions of lists", f.stage(classes_per_session=f.lists(6)), USABLE, "its classes_per_session is [[["),
    case("a hundred thousand sessions", f.stage(f.sessions(10**5)), USABLE, "100000 sessions, expected at most 1000"),
    case("a thousand sessions", f.stage(f.sessions(1000)), "s.pth", MORE),
    case("lists deep in lists", f.stage(more=f.deep_lists(200)), "s.pth", READ, "more than 64 deep"),
    case("a list in itself", f.stage(more=f.own_list()), "s.pth", READ, "more than 64 deep"),
    case("format of lists", f.stage(format=f.lists(6)), "s.pth is no stage checkpoint"),
    case("a class twice", f.stage(classes=["ant", "ant"]), USABLE, "names the class 'ant' twice"),
    case("another task", f.stage(task="tagging"), USABLE, "its task is 'tagging'", "multi_label or single_label"),
    case("a task of lists", f.stage(task=f.lists(6)), USABLE, "its task is [[["),
    case("fit is a number", f.stage(fit=3), USABLE, "its fit is 3"),
    case("unknown fit", f.stage(fit={"kind": "round"}), USABLE, "fit is 'round'"),
    case("fit of a billion pixels", f.stage(fit={"kind": "centre", "short_side": 10**9}), USABLE, "number 1e+09"),
    case("fit of lists", f.stage(fit={"kind": f.lists(6)}), USABLE, "its fit has more than 1000 values"),
    case("correction is a word", f.stage(logit_correction="x"), USABLE, "logit_correction is 'x'"),
    case("correction of 3 classes", f.stage(logit_correction=torch.ones(3, 2)), USABLE, "for 2 classes"),
    case("correction is no number", f.stage(logit_correction=torch.full((2, 2), f.NAN)), USABLE, "not finite"),
    case("thresholds are a word", f.stage(thresholds="x"), USABLE, "its thresholds are 'x'", "each of 2 classes"),
    case("a threshold too few", f.stage(thresholds=[0.5]), USABLE, "thresholds are [0.5]", "each of 2 classes"),
    case("a threshold above 1", f.stage(thresholds=[0.5, 1.5]), USABLE, "[0.5, 1.5]", "numbers from 0 to 1"),
    case("thresholds of lists", f.stage(thresholds=f.lists(6)), USABLE, "its thresholds are [[["),
    case("parents are numbers", f.stage(parents=[1]), USABLE, "its parents are [1]", "a list of digests"),
    case("kept is negative", f.stage(kept={"images": -1}), USABLE, "its kept is {'images': -1}", "bytes by kind"),
    case("kept of lists", f.stage(kept=f.lists(6)), USABLE, "its kept is [[["),
    case("backbone is a number", f.of_network(backbone=3), "s.pth", "cannot be built"),
    case("head is a word", f.of_network(head="ica"), "s.pth", "cannot be built"),
    case("a weight named by a number", f.stage(lambda m: m["state_dict"].update({3: torch.ones(1)})), "3 is unex"),
    case("unknown head", f.of_network(head={"type": "tail"}), "s.pth", "cannot be built", "'tail'"),
    case("unknown option", f.of_network(head={"type": "linear", "run": "rm"}), "s.pth", "cannot be built", "'run'"),
    case("more weights", f.stage(lambda m: m["state_dict"].update(x=torch.ones(1))), "x is unexpected"),
    case("a weight less", f.stage(lambda m: m["state_dict"].pop("head.linear.bias")), "head.linear.bias is missing"),
]  # fmt: skip

IMAGES = [
    case("missing", lambda folder: folder / "x.jpg", "x.jpg does not exist"),
    case("empty", f.content("x.jpg", ""), "x.jpg is no image"),
    case("text", f.content("x.jpg", "no image"), "x.jpg is no image"),
    case("a page of the web", f.content("x.png", "<html><body>404</body></html>"), "x.png is no image"),
    case("cut jpg", f.cut_image("x.jpg", 0.6), "x.jpg is a damaged image", "bytes"),
    case("cut png", f.cut_image("x.png", 0.6), "x.png is a damaged image", "bytes"),
    case("cut gif", f.cut_image("x.gif", 0.4), "x.gif is no image"),
    case("cut bmp", f.cut_image("x.bmp", 0.5), "x.bmp is a damaged image", "bytes"),
    case("cut tif", f.cut_image("x.tif", 0.5), "x.tif is a"),
    case("cut webp", f.cut_image("x.webp", 0.5), "x.webp is a"),
    case("header alone", f.content("x.png", f.png(8, 8)[:40]), "x.png is no image"),
    case("a bomb", f.content("x.png", f.png(60000, 60000)), "x.png is no image that can be read", "decompression bomb"),
    case("a smaller bomb", f.content("x.png", f.png(10000, 10000)), "x.png", "decompression bomb"),
    case("a text that unpacks for ever", f.content("x.png", f.png(8, 8, f.long_text())), "x.png is a damaged image"),
    case("too few pixels", f.content("x.png", f.png(64, 64)), "x.png is a damaged image"),
    case("pipe", f.a_pipe("x.jpg"), "x.jpg"),
    case("folder of nothing", f.a_folder("x.jpg"), "x.jpg holds no images"),
    case("link to itself", f.a_link_to_itself("x.jpg"), "x.jpg"),
    case("device", f.a_device("x.jpg"), "x.jpg"),
]


def third(number: str) -> Callable[[str], str]:
    """Give the fourth image of an instances json another id."""
    return lambda text: text.replace('"id": 3,', f'"id": {number},', 1)


J, LEAVES = "instances_train2014.json", "leaves the folder"
COCO = [
    case("a list", f.coco(raw=lambda text: "[]"), J, "holds a json list"),
    case("a number", f.coco(raw=lambda text: "3"), J, "holds a json int"),
    case("images are an object", f.coco(lambda m: m.update(images={})), J, "'images' is a json dict"),
    case("annotations are null", f.coco(lambda m: m.update(annotations=None)), J, "'annotations' is a json NoneType"),
    case("an entry is null", f.coco(lambda m: m["annotations"].append(None)), J, "entry 16", "expected an object"),
    case("an id is a word", f.entry("images", id="7"), J, "entry 3 of 'images'", "'7'", "whole number"),
    case("an id is true", f.entry("images", id=True), J, "True", "whole number"),
    case("an id is a fraction", f.entry("annotations", image_id=1.0), J, "1.0", "whole number"),
    case("an id is infinite", f.coco(raw=third("1e999")), J, "inf", "whole number"),
    case("an id of 5000 digits", f.coco(raw=third("9" * 5000)), J, "not usable"),
    case("an id of 30 digits that nobody has", f.entry("annotations", image_id=10**29), J, "unknown image", "1000000"),
    case("an image twice", f.entry("images", id=2), J, "two images have the id 2"),
    case("a category twice", f.entry("categories", id=1), J, "two categories have the id 1"),
    case("a name twice", f.entry("categories", name="ant"), J, "two categories are named 'ant'"),
    case("a nameless category", f.entry("categories", name=" "), J, "has the name ' '"),
    case("a category without text", f.entry("categories", name="\ud800"), J, "category 4 has the name"),
    case("a box of NaN", f.entry("annotations", bbox=[float("nan")] * 4), J, "NaN", "no number of json"),
    case("an infinite area", f.entry("annotations", area=float("inf")), J, "Infinity", "no number of json"),
    case("crowd is 2", f.entry("annotations", iscrowd=2), J, "iscrowd 2", "expected 0 or 1"),
    case("crowd is a list", f.entry("annotations", iscrowd=[1]), J, "iscrowd [1]", "expected 0 or 1"),
    case("up and away", f.named("../../etc/passwd"), J, "'../../etc/passwd'", LEAVES),
    case("up in the middle", f.named("a/../../b.jpg"), J, LEAVES),
    case("from the root", f.named("/etc/passwd"), J, LEAVES),
    case("from another root", f.named("C:\\x.jpg"), J, LEAVES),
    case("from a server", f.named("\\\\host\\x.jpg"), J, LEAVES),
    case("backwards", f.named("..\\x.jpg"), J, LEAVES),
    case("with a zero", f.named("a\0b.jpg"), J, LEAVES),
    case("no text", f.named(17), J, "image 2 has the file_name 17"),
    case("no name", f.named(""), J, "image 2 has the file_name ''"),
    case("half a character", f.named("\udcff.jpg"), J, "image 2 has the file_name"),
    case("a name as long as a book", f.named("x" * 5000), "1 of 8 image files", "lacks xxxx"),
    case("nested too deep", f.coco(raw=lambda text: "[" * 100_000), J),
    case("half the text", f.coco(raw=lambda text: text[: len(text) // 2]), J, "complete COCO instances json"),
    case("two bytes a character", f.coco(raw=lambda text: text.encode("utf-16")), J, "not UTF-8"),
    case("compressed", f.coco(raw=lambda text: b"\x1f\x8b" + text.encode()), J, "unpack"),
    case("a pipe", f.instead(f.coco(), f.a_pipe), J, "is no regular file but a pipe"),
    case("a device", f.instead(f.coco(), f.a_device), J, "is no regular file but a pipe, a device"),
    case("a folder", f.instead(f.coco(), f.a_folder), J),
]  # fmt: skip

ENTITY = '<!DOCTYPE x [<!ENTITY p SYSTEM "file:///etc/passwd">]>'
OBJECT = "<annotation><object>{}</object></annotation>"
VOC = [
    case("entities that multiply", f.voc_xml(f.many_entities()), "trainval_1.xml", "not complete xml"),
    case("an entity from a file", f.voc_xml(ENTITY + OBJECT.format("<name>&p;</name>")), "trainval_1.xml"),
    case("half an element", f.voc_xml("<annotation><object>"), "trainval_1.xml", "not complete xml"),
    case("another root", f.voc_xml("<html/>"), "trainval_1.xml", "<html>"),
    case("nameless", f.voc_xml(OBJECT.format("")), "trainval_1.xml", "object 1 has no name"),
    case("perhaps difficult", f.voc_xml(OBJECT.format("<name>ant</name><difficult>yes</difficult>")), "'yes'"),
    case("up and away", f.voc_list("../../etc/passwd"), "trainval.txt", "'../../etc/passwd'", "without folder"),
    case("a zero", f.voc_list("a\0"), "trainval.txt", "without folder"),
    case("the folder itself", f.voc_list(".."), "trainval.txt", "1 of 9 images"),
    case("twice", f.voc_list("trainval_3"), "trainval.txt", "'trainval_3' 2 times"),
    case("a pipe", f.instead(f.voc_xml("<html/>"), f.a_pipe), "trainval_1.xml is no regular file"),
    case("a device", f.instead(f.voc_xml("<html/>"), f.a_device), "trainval_1.xml is no regular file"),
    case("a list that is a pipe", f.instead(f.voc_list(), f.a_pipe), "trainval.txt"),
    case("a list that is a device", f.instead(f.voc_list(), f.a_device), "trainval.txt"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("make", "expected"), CHECKPOINTS)
def test_checkpoints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: f.Make, expected: tuple[str, ...]
) -> None:
    photo = tiny.write_image(tmp_path / "photo.png")
    check_refused(capsys, tmp_path, ["predict", make(tmp_path), photo], expected)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("make", "expected"), IMAGES)
def test_images(capsys: pytest.CaptureFixture[str], tmp_path: Path, make: f.Make, expected: tuple[str, ...]) -> None:
    stage = tiny.write_stage(tmp_path / "stage.pth")
    check_refused(capsys, tmp_path, ["predict", stage, make(tmp_path)], expected)


@pytest.mark.parametrize(("kind", "make", "expected"), [
    *(pytest.param("coco", *p.values, id=f"coco {p.id}") for p in COCO),
    *(pytest.param("voc", *p.values, id=f"voc {p.id}") for p in VOC),
])  # fmt: skip
def test_annotations(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, make: f.Make, expected: tuple[str, ...]
) -> None:
    make(tmp_path)
    config = tiny.write_config(tmp_path, tmp_path / "data", kind)
    check_refused(capsys, tmp_path, ["train", config, "--check"], expected)


@pytest.mark.parametrize("make", [f.a_pipe, f.a_device, f.a_link_to_itself])
@pytest.mark.parametrize(("name", "words"), [
    ("labels.csv", ["data", "labels.csv"]),
    ("labels.jsonl", ["data", "labels.jsonl"]),
    ("t.onnx", ["info", "t.onnx"]),
    ("t.safetensors", ["info", "t.safetensors"]),
    ("results.json", ["compare", "."]),
    ("results.json", ["report", "."]),
    ("results.json", ["results", ".", "--to", "all.csv"]),
    ("bench.py", ["bench", "bench.py"]),
])  # fmt: skip
def test_what_would_be_read_for_ever(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Callable[[str], f.Make], name: str, words: list[str]
) -> None:
    make(name)(tmp_path)
    check_refused(capsys, tmp_path, words, (name,))


@pytest.mark.parametrize("make", [f.a_pipe, f.a_device])
def test_a_lock_that_is_none(tmp_path: Path, make: Callable[[str], f.Make]) -> None:
    make(lock.NAME)(tmp_path)
    with (
        pytest.raises(UserError, match=r"lock (is no regular|could not be written .Too many)"),
        lock.RunLock(tmp_path),
    ):
        pass


def test_there_are_enough_of_them() -> None:
    assert len(CHECKPOINTS) + len(IMAGES) + len(COCO) + len(VOC) >= 100


# -- unusual, and right ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(f.image("x.jpg", "CMYK"), (32, 24), id="four inks"),
        pytest.param(f.image("x.png", "P"), (32, 24), id="palette"),
        pytest.param(f.image("x.png", "LA"), (32, 24), id="grey with transparency"),
        pytest.param(f.image("x.png", "1"), (32, 24), id="one bit"),
        pytest.param(f.image("x.tif", "F"), (32, 24), id="floating point"),
        pytest.param(f.image("x.tif", "I"), (32, 24), id="32 bits"),
        pytest.param(f.image("größe \U0001f600.png"), (32, 24), id="unicode"),
        pytest.param(f.image("x.png", size=(1, 1)), (1, 1), id="one pixel"),
        pytest.param(f.image("x.gif"), (32, 24), id="gif"),
    ],
)
def test_unusual_images_are_read(tmp_path: Path, make: f.Make, size: tuple[int, int]) -> None:
    image = load_rgb(make(tmp_path))
    assert image.mode == "RGB"
    assert image.size == size


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    assert load_rgb(f.animation(tmp_path)).getpixel((4, 4)) == (255, 0, 0)


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    assert load_rgb(f.sixteen_bits(tmp_path)).getpixel((0, 0)) == (128, 128, 128)


def test_a_photo_is_turned_as_it_says(tmp_path: Path) -> None:
    pixels = np.asarray(load_rgb(f.turned(tmp_path)))
    assert pixels.shape == (32, 16, 3)
    assert pixels[:12].min() > 200
    assert pixels[20:].max() < 50


def test_annotations_in_any_language_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def change(made: dict[str, Any]) -> None:
        made["images"][0]["file_name"] = "犬/größe.jpg"
        made["images"][0]["id"] = made["annotations"][0]["image_id"] = made["annotations"][1]["image_id"] = 10**30

    f.coco(change, raw=lambda text: "\ufeff" + text)(tmp_path)
    tiny.write_image(tmp_path / "data" / "train2014" / "犬" / "größe.jpg")
    config = tiny.write_config(tmp_path, tmp_path / "data")
    code, _, err = tiny.call(capsys, "train", config, "--check")
    assert (code, err) == (0, "")


def test_folders_that_lead_into_themselves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    stage = tiny.write_stage(tmp_path / "stage.pth")
    photo = tiny.write_image(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    code, out, _ = tiny.call(capsys, "predict", stage, tmp_path / "photos")
    assert code == 0
    assert [line.split('"')[3] for line in out.splitlines()] == [str(photo)]
