"""Mistakes of users, through the command line: exit code 2, one sentence on stderr, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from mlcil.interop.official import to_official
from mlcil.models.network import IncrementalNetwork


class World:
    """A folder with a data set, a config and whatever a case adds."""

    def __init__(self, root: Path, kind: str = "coco") -> None:
        self.root, self.data = root, root / "data"
        {"coco": tiny.coco_folder, "voc": tiny.voc_folder}[kind](self.data)
        self.config = tiny.write_config(root, self.data, kind)
        self.annotations = self.data / "annotations" / "instances_train2014.json"

    def edit_annotations(self, change: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads(self.annotations.read_text())
        change(content)
        self.annotations.write_text(json.dumps(content))

    def weights(self, content: object, name: str = "weights.pth") -> Path:
        torch.save(content, self.root / name)
        return self.root / name

    @property
    def run(self) -> str:
        return f"{self.root.name}_run"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


Case = Callable[[World], object]


def check_refused(capsys: pytest.CaptureFixture[str], world: World, words: list[Any], expected: tuple[str, ...]) -> str:
    """One sentence with all the expected words, exit code 2, and no file made or changed."""
    before = tiny.snapshot(world.root)
    code, out, err = tiny.call(capsys, *words)
    check_sentence(code, err, expected)
    assert out == ""
    assert tiny.snapshot(world.root) == before
    return err


def check_sentence(code: int, err: str, expected: tuple[str, ...]) -> None:
    assert code == 2, err
    assert err.startswith("mlcil: "), err
    assert err.endswith("\n"), err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in expected:
        assert word in err, f"{word!r} is not in: {err}"


def case(name: str, change: Case, *expected: str) -> Any:
    return pytest.param(change, expected, id=name)


# -- data -------------------------------------------------------------------------------------------------


def no_file(world: World) -> None:
    world.annotations.unlink()


def no_root(world: World) -> None:
    world.data.rename(world.root / "elsewhere")


def no_label_of_cat(world: World) -> None:
    cat = tiny.CLASSES.index("cat") + 1
    world.edit_annotations(lambda c: c.update(annotations=[a for a in c["annotations"] if a["category_id"] != cat]))


JSON = "instances_train2014.json"
COCO = [
    case("json missing", no_file, JSON, "does not exist", "expected a COCO instances json", "--demo"),
    case("json empty", lambda w: w.annotations.write_text(""), JSON, "is empty", "download it again"),
    case("json truncated", lambda w: tiny.truncate(w.annotations), JSON, "line 1 column", "a complete", "again"),
    case("json of text", lambda w: w.annotations.write_text("hello"), JSON, "is not json", "expected"),
    case("json binary", lambda w: w.annotations.write_bytes(b"\x1f\x8b\x08"), JSON, "not UTF-8", "unpack"),
    case("json is a folder", lambda w: (no_file(w), w.annotations.mkdir()), JSON, "no regular file but a folder"),
    case("json without key", lambda w: w.edit_annotations(lambda c: c.pop("categories")), JSON, "lacks 'categories'"),
    case(
        "unknown image",
        lambda w: w.edit_annotations(lambda c: c["annotations"][3].update(image_id=77)),
        JSON, "1 of 16 annotations", "unknown image", "image_id 77", "add the image or remove",
    ),
    case(
        "unknown category",
        lambda w: w.edit_annotations(lambda c: c["annotations"][3].update(category_id=77)),
        JSON, "unknown category", "category_id 77", "expected ids that 'categories' lists",
    ),
    case(
        "other category in the test file",
        lambda w: w.edit_annotations(lambda c: c["categories"][0].update(name="anteater")),
        "instances_val2014.json", "'ant'", "same categories",
    ),
    case("image missing", lambda w: (w.data / "train2014/3.jpg").unlink(), "1 of 8 image files", "3.jpg", "--demo"),
    case("test image missing", lambda w: (w.data / "val2014/1.jpg").unlink(), "1 of 4 image files", "1.jpg", "--demo"),
    case("images missing", lambda w: (w.data / "train2014").rename(w.data / "x"), "train2014 does not exist", "--demo"),
    case("data missing", no_root, "data folder", "does not exist", "docs/data.md", "--demo"),
    case("data is a file", lambda w: (no_root(w), w.data.write_text("")), "data folder", "is a file", "--demo"),
    case("class without image", no_label_of_cat, "'cat'", "at least one image a class", "allow_empty_classes"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), COCO)
def test_coco_data(capsys: pytest.CaptureFixture[str], world: World, change: Case, expected: tuple[str, ...]) -> None:
    change(world)
    check_refused(capsys, world, ["train", world.config], expected)


def write_xml(world: World, name: str, text: str) -> None:
    (world.data / "Annotations" / f"{name}.xml").write_text(text)


EEL = "<annotation><object><name>eel</name></object></annotation>"
VOC = [
    case("data missing", no_root, "data folder", "does not exist", "--demo"),
    case("list missing", lambda w: (w.data / "ImageSets/Main/test.txt").unlink(), "test.txt does not exist", "add"),
    case("list empty", lambda w: (w.data / "ImageSets/Main/test.txt").write_text("\n"), "test.txt is empty", "fill it"),
    case("xml missing", lambda w: (w.data / "Annotations/test_1.xml").unlink(), "test_1.xml does not exist", "add it"),
    case("xml truncated", lambda w: tiny.truncate(w.data / "Annotations/test_1.xml"), "test_1.xml", "not complete xml"),
    case("xml empty", lambda w: write_xml(w, "test_1", ""), "test_1.xml", "not complete xml", "again"),
    case("unknown class", lambda w: write_xml(w, "test_1", EEL), "test_1.xml", "'eel'", "none of the 4 classes"),
    case("image missing", lambda w: (w.data / "JPEGImages/test_1.jpg").unlink(), "'test_1'", "JPEGImages", "add the"),
    case("no VOC folder", lambda w: (w.data / "ImageSets").rename(w.data / "x"), "ImageSets/Main", "scenario.dataset"),
]


@pytest.mark.parametrize(("change", "expected"), VOC)
def test_voc_data(capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Case, expected: tuple[str, ...]) -> None:
    world = World(tmp_path, "voc")
    change(world)
    check_refused(capsys, world, ["train", world.config], expected)


def test_plan_and_test_refuse_bad_data_as_train_does(capsys: pytest.CaptureFixture[str], world: World) -> None:
    stage = tiny.write_stage(world.root / "session_0.pth")
    no_file(world)
    for words in (["plan", world.config], ["plan", world.config, "--json"], ["test", stage, world.config]):
        check_refused(capsys, world, words, (JSON, "does not exist"))


def test_an_image_without_labels_is_in_no_session(capsys: pytest.CaptureFixture[str], world: World) -> None:
    world.edit_annotations(lambda c: c.update(annotations=[a for a in c["annotations"] if a["image_id"] != 5]))
    code, _, err = tiny.call(capsys, "train", world.config, "--check")
    assert (code, err) == (0, "")
    _, out, _ = tiny.call(capsys, "plan", world.config, "--json")
    plan = json.loads(out)
    assert (plan["training_images"], plan["unused_training_images"]) == (7, 1)


@pytest.mark.parametrize("split", ["train2014", "val2014"])
def test_damaged_image_during_a_run(capsys: pytest.CaptureFixture[str], world: World, split: str) -> None:
    image = tiny.truncate(world.data / split / "0.jpg")
    code, _, err = tiny.call(capsys, "train", world.config)
    check_sentence(code, err, (str(image), "is a damaged image", "bytes", "replace it or remove it from the data"))


def test_damaged_image_during_a_test(capsys: pytest.CaptureFixture[str], world: World) -> None:
    stage = tiny.write_stage(world.root / "session_0.pth")
    image = tiny.truncate(world.data / "val2014" / "0.jpg")
    check_refused(capsys, world, ["test", stage, world.config], (str(image), "is a damaged image", "replace it"))


@pytest.mark.parametrize(("split", "found"), [("train2014", "is no image"), ("val2014", "is a damaged image")])
def test_a_worker_process_meets_a_damaged_image(world: World, split: str, found: str) -> None:
    image = world.data / split / "0.jpg"
    if found == "is no image":
        image.write_text("not an image")
    else:
        tiny.truncate(image)
    loaders = [f"{loader}_dataloader.num_workers=1" for loader in ("train", "test")]
    call = tiny.run_cli if split == "train2014" else tiny.fork_cli  # a process that ends by itself, and a quick one
    done = call("train", world.config, *loaders, cwd=world.root)
    check_sentence(done.returncode, done.stderr, (str(image), found, "replace it or remove it from the data"))


# -- protocol ---------------------------------------------------------------------------------------------

PROTOCOL = [
    (["scenario.class_order=['ant','bee','ant','dog']"], ("class_order names 'ant' twice", "exactly once")),
    (["scenario.class_order=['ant','bee','kat','dog']"], ("'kat'", "none of the 4 classes", "did you mean 'cat'?")),
    (["scenario.class_order=['ant','dog']"], ("2 of 4 classes", "misses 'bee', 'cat'", "exactly once")),
    (["scenario.class_order=lexicografic"], ("did you mean 'lexicographic'?", "random:SEED")),
    (["scenario.class_order=random:x"], ("'random:x'", "whole number")),
    (["scenario.increment=3"], ("4 classes", "sessions of 3", "increment=2 or 4")),
    (["scenario.base=1", "scenario.increment=2"], ("3 classes after a base of 1", "base=2", "increment=1 or 3")),
    (["scenario.base=9"], ("base is 9", "only 4 classes", "at most 4")),
    (["scenario.increment=0"], ("increment is 0", "at least 1")),
    (["scenario.increment=two"], ("increment is 'two'", "whole number")),
    (["scenario.fixed_test_images=al"], ("fixed_test_images is 'al'", "did you mean 'all'?")),
    (["scenario.dataset.crowd=keep"], ("crowd is 'keep'", "'select'")),
]


@pytest.mark.parametrize(("words", "expected"), PROTOCOL)
def test_protocol(
    capsys: pytest.CaptureFixture[str], world: World, words: list[str], expected: tuple[str, ...]
) -> None:
    check_refused(capsys, world, ["train", world.config, *words], expected)


# -- weights ----------------------------------------------------------------------------------------------


class Harm:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def official(width: float = 0.25) -> dict[str, torch.Tensor]:
    """A trunk under the names of the released files."""
    network = IncrementalNetwork({**tiny.BACKBONE, "width": width}, {"type": "linear"}, tiny.SIZE)
    return to_official(network.state_dict())


def leaky() -> dict[str, Any]:
    """The layout of the COCO-trained file."""
    return {"model": official(), "num_classes": 4, "idx_to_class": dict(enumerate(tiny.CLASSES))}


def damaged() -> dict[str, torch.Tensor]:
    state = official()
    state["conv1.0.weight"][0, 0, 0, 0] = float("nan")
    return state


def write_pickle(world: World) -> None:
    (world.root / "weights.pth").write_bytes(pickle.dumps(Harm(world.root / "harm"), protocol=2))


WEIGHTS = [
    case("missing", lambda w: None, "weights.pth", "missing", "docs/data.md", "--demo"),
    case("a folder", lambda w: (w.root / "weights.pth").mkdir(), "weights.pth is a folder", "expected a PyTorch"),
    case("empty", lambda w: (w.root / "weights.pth").touch(), "weights.pth", "cut off", "download it again"),
    case("text", lambda w: (w.root / "weights.pth").write_text("<html>"), "weights.pth", "another format", "again"),
    case("truncated", lambda w: tiny.truncate(w.weights(official())), "weights.pth", "cut off", "download it again"),
    case("wrong shapes", lambda w: w.weights(official(0.5)), "weights.pth", "stem", "(32, 48, 3, 3)", "(16, 48, 3, 3)"),
    case("not finite", lambda w: w.weights(damaged()), "weights.pth", "not finite", "download it again"),
    case("of another network", lambda w: w.weights({"a": torch.ones(1)}), "weights.pth", "are missing", "choose the"),
    case("no state dict", lambda w: w.weights({"a": 1}), "weights.pth", "no state dict", "'state_dict' or 'model'"),
    case("a list", lambda w: w.weights([torch.ones(1)]), "weights.pth", "no state dict"),
    case("a pickle with code", write_pickle, "weights.pth", "posix.mkdir", "not run", "expected"),
    case("zipped code", lambda w: w.weights({"a": Harm(w.root / "harm")}), "weights.pth", "posix.mkdir", "not run"),
    case(
        "leaking",
        lambda w: w.weights(leaky()),
        "4 of the 4 evaluated classes",
        "such as ant",
        "allow_leaky_weights=True",
    ),
]


@pytest.mark.skipif(os.name != "posix", reason="the names of the code in the pickles")
@pytest.mark.parametrize(("change", "expected"), WEIGHTS)
def test_weights(capsys: pytest.CaptureFixture[str], world: World, change: Case, expected: tuple[str, ...]) -> None:
    change(world)
    check_refused(capsys, world, ["train", world.config, f"pretrained={world.root / 'weights.pth'}"], expected)


def test_check_looks_into_the_weights(capsys: pytest.CaptureFixture[str], world: World) -> None:
    words = ["train", world.config, f"pretrained={world.weights(leaky())}", "--check"]
    check_refused(capsys, world, words, ("has seen the labels", "ImageNet-21K-P"))


def test_unknown_weights_package(capsys: pytest.CaptureFixture[str], world: World) -> None:
    words = ["train", world.config, "pretrained=package:efficientnet"]
    check_refused(capsys, world, words, ("'package:efficientnet'", "package:efficientnet-lite0"))


def test_leaking_weights_are_taken_when_asked_for(capsys: pytest.CaptureFixture[str], world: World) -> None:
    words = [f"pretrained={world.weights(leaky())}", "allow_leaky_weights=True", "train_cfg.stop_after_session=0"]
    code, out, err = tiny.call(capsys, "train", world.config, *words)
    assert (code, err) == (0, "")
    results = json.loads((world.root / "logs" / world.run / "results.json").read_text())
    assert "evaluated classes" in results["provenance"]["weights"]["leak"]
    assert "weights.pth" in out


# -- config -----------------------------------------------------------------------------------------------

CONFIG = [
    case("unknown key", lambda w: "train_config = dict(max_epochs=1)", "'train_config'", "did you mean 'train_cfg'?"),
    case("unknown nested key", lambda w: "train_cfg['max_epoch'] = 1", "'max_epoch' in train_cfg", "'max_epochs'?"),
    case("unknown head key", lambda w: "network['head']['dim'] = 1", "'dim' in network.head"),
    case("syntax error", lambda w: "method = dict(", "run.py", "SyntaxError", "correct it"),
    case("failing config", lambda w: "method = 1 / 0", "run.py", "ZeroDivisionError", "correct it"),
    case("no scenario", lambda w: "del scenario", "run.py", "no 'scenario'", "scenario, network and method"),
    case("no method", lambda w: "del method", "run.py", "no 'method'"),
    case("no base", lambda w: "del scenario['base']", "scenario has no 'base'", "scenario.base=10"),
    case("no backbone", lambda w: "del network['backbone']", "network.backbone has no 'name'", "tresnet_m"),
    case("section of a wrong kind", lambda w: "train_cfg = 3", "train_cfg", "is 3", "expected a dictionary"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "expected"), CONFIG)
def test_config(capsys: pytest.CaptureFixture[str], world: World, more: Case, expected: tuple[str, ...]) -> None:
    world.config.write_text(f"{world.config.read_text()}\n{more(world)}\n")
    check_refused(capsys, world, ["train", world.config], expected)


OVERRIDES = [
    (["sed=1"], ("'sed'", "did you mean 'seed'?")),
    (["train_cfg.max_epoks=1"], ("'max_epoks'", "did you mean 'max_epochs'?")),
    (["nonsense.more=1"], ("'nonsense'", "known:")),
    (["epochs"], ("'epochs' is no config", "neither a python file nor a method", "`mlcil config`")),
    (["lwf"], ("lwf needs data", "data=NAME", "coco")),
    (["lwf", "data=coc"], ("data is 'coc'", "did you mean 'coco'?")),
    (["krt", "data=cifar10"], ("krt is for many labels an image", "cifar10 has one class an image")),
    (["krt", "data=coco", "protocol=B4"], ("protocol is 'B4'", "B40-C10", "10-tasks")),
    (["krt", "data=coco_format"], ("data=coco_format needs a protocol",)),
    (["abd", "data=cifar10", "backbone=lite0"], ("backbone=lite0 is not for one class",)),
    (["dgr", "data=folder", "protocol=2-tasks"], ("dgr does not go with data=folder", "smaller images")),
    (["configs/krt/coco_b0c10.py"], ("configs have names now", "`krt/coco_b0c10`", "`mlcil config`")),
    (["configs/_base_/lite0_ica.py"], ("configs have names now", "`krt data=coco protocol=B0-C10`")),
    (["data=coco"], ("'data=coco' goes with the name of a method", "run.py is a file")),
    (["=1"], ("'=1'", "overrides look like train_cfg.max_epochs=2")),
    (["method.type=KRTT"], ("'KRTT'", "did you mean 'KRT'?")),
    (["method.type=finetune"], ("'finetune'", "did you mean 'Finetune'?")),
    (["method.type=5"], ("method.type 5 is unknown", "KRT")),
    (["method=KRT"], ("method needs a 'type'", "KRT")),
    (["method.weight=1"], ("unknown key 'weight' in method",)),
    (["scenario.dataset.type=cocoo"], ("'cocoo'", "did you mean 'coco'?")),
    (["network.backbone.name=tresnett"], ("'tresnett'", "did you mean tresnet")),
    (["network.backbone.name=5"], ("backbone '5'", "nor a timm model")),
    (["network.backbone.layers=[1]"], ("network or method of the config",)),
    (["network.head.type=mlp"], ("'mlp'", "use one of 'ica'", "'linear'")),
    (["network.head={'type':'ica','embed_dim':30,'num_heads':4}"], ("embed_dim 30", "multiple of 4")),
    (["network.image_size=60"], ("image_size 60", "multiple of 32")),
    (["precision=fp61"], ("precision is 'fp61'", "bf16")),
    (["test_dataloader.precision=fp61"], ("test_dataloader.precision is 'fp61'", "bf16")),
    (["train_dataloader.num_workers=-1"], ("train_dataloader.num_workers is -1", "whole number")),
    (["train_dataloader.batch_size=0"], ("train_dataloader.batch_size is 0", "whole number")),
    (["train_dataloader=4"], ("train_dataloader", "is 4", "dictionary")),
    (["train_cfg.max_epochs=0"], ("max_epochs is 0", "at least 1")),
    (["optim_wrapper.optimizer.lr=-1"], ("optim_wrapper.optimizer", "-1")),
    (["optim_wrapper.optimizer.lr=fast"], ("optim_wrapper.optimizer.lr is 'fast'", "expected a number")),
    (["optim_wrapper.optimizer.type=Adamm"], ("'Adamm'", "such as 'Adam'")),
    (["param_scheduler=[{'type':'Cycle'}]"], ("param_scheduler", "'Cycle'")),
    (["custom_hooks=[{'type':'Nothing'}]"], ("custom_hooks", "'Nothing'")),
    (["log_level=LOUD"], ("log_level is 'LOUD'", "INFO")),
    (["seed=one"], ("seed is 'one'", "whole number")),
    (["memory={}"], ("memory needs exactly one budget", "per_class=IMAGES")),
    (["memory.per_class=2", "memory.selection=best"], ("'best'", "'herding' or 'random'")),
    (["memory=3"], ("memory", "is 3", "dictionary")),
    (["--name", "a/b"], ("run name 'a/b'", "without slashes")),
    (["--name", ".."], ("run name '..'", "plain folder name")),
    (["--resume"], ("resume.pth does not exist", "nothing to resume", "without --resume")),
]


@pytest.mark.parametrize(("words", "expected"), OVERRIDES)
def test_words_of_train(
    capsys: pytest.CaptureFixture[str], world: World, words: list[str], expected: tuple[str, ...]
) -> None:
    check_refused(capsys, world, ["train", world.config, *words], expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in fp16")
def test_fp16_on_the_cpu(capsys: pytest.CaptureFixture[str], world: World) -> None:
    check_refused(capsys, world, ["train", world.config, "precision=fp16"], ("'fp16'", "CPU", "'bf16', 'fp32'"))


def test_config_file_missing(capsys: pytest.CaptureFixture[str], world: World) -> None:
    missing = world.root / "missing.py"
    for words in (["train", missing], ["plan", missing], ["test", "x.pth", missing]):
        check_refused(capsys, world, words, (str(missing), "is no config file", "expected a python file"))
    check_refused(capsys, world, ["train", "seed=1"], ("no config given", "python file"))


def test_plan_takes_overrides_only(capsys: pytest.CaptureFixture[str], world: World) -> None:
    check_refused(capsys, world, ["plan", world.config, "epochs"], ("'epochs'", "train_cfg.max_epochs=2"))


def test_an_existing_run_is_kept(capsys: pytest.CaptureFixture[str], world: World) -> None:
    run = world.root / "logs" / world.run
    run.mkdir(parents=True)
    (run / "config.py").write_text("seed = 1\n")
    choices = ("holds a run of that name already", "--resume", "--name", "--overwrite")
    check_refused(capsys, world, ["train", world.config], (str(run), *choices))
    stage = tiny.write_stage(world.root / "saved" / "other" / "session_0.pth")
    check_refused(capsys, world, ["train", world.config, "--name", "other"], (str(stage.parent), *choices))


def test_overwrite_keeps_the_old_run_until_all_is_checked(capsys: pytest.CaptureFixture[str], world: World) -> None:
    tiny.write_stage(world.root / "saved" / world.run / "session_0.pth")
    words = ["train", world.config, "--overwrite"]
    check_refused(capsys, world, [*words, "network.image_size=60"], ("image_size 60",))
    check_refused(capsys, world, [*words, "pretrained=none.pth"], ("none.pth",))


def test_resume_of_another_protocol_changes_nothing(capsys: pytest.CaptureFixture[str], world: World) -> None:
    stop = "train_cfg.stop_after_session=0"
    assert tiny.call(capsys, "train", world.config, stop)[0] == 0
    words = ["train", world.config, "--resume", "scenario.class_order=['dog','cat','bee','ant']"]
    check_refused(capsys, world, words, ("resume.pth", "belongs to protocol", "config.py", "--name"))
    words = ["train", world.config, "--resume", "network.backbone.width=0.5"]
    check_refused(capsys, world, words, ("resume.pth", "another network", "'width': 0.25", "config.py", "--name"))
    (world.root / "saved" / world.run / "resume.pth").write_text("nothing")
    check_refused(capsys, world, ["train", world.config, "--resume"], ("resume.pth", "cannot be read as tensors"))
    tiny.write_stage(world.root / "saved" / world.run / "resume.pth")
    check_refused(capsys, world, ["train", world.config, "--resume"], ("resume.pth", "is no mlcil-resume-4 file"))


# -- test, predict, convert -------------------------------------------------------------------------------


def write_other(world: World) -> Path:
    path = world.root / "other.pth"
    torch.save({"epoch": 3}, path)
    return path


def write_misfit(world: World) -> Path:
    content = tiny.stage_content()
    content["network"] = {**content["network"], "backbone": {**tiny.BACKBONE, "width": 0.5}}
    torch.save(content, world.root / "misfit.pth")
    return world.root / "misfit.pth"


def write_unbuildable(world: World) -> Path:
    content = tiny.stage_content()
    content["network"] = {**content["network"], "backbone": {"name": "nothing"}}
    torch.save(content, world.root / "unbuildable.pth")
    return world.root / "unbuildable.pth"


CHECKPOINTS = [
    case("missing", lambda w: w.root / "session_9.pth", "session_9.pth does not exist", "expected"),
    case("a folder", lambda w: w.data, "data is a folder", "expected"),
    case("an image", lambda w: w.data / "train2014/0.jpg", "0.jpg", "cannot be read as tensors", "expected"),
    case("truncated", lambda w: tiny.truncate(tiny.write_stage(w.root / "s.pth")), "s.pth", "cut off", "download"),
    case("something else", write_other, "other.pth", "is no stage checkpoint", "session_<t>.pth", "convert"),
    case("other shapes", write_misfit, "misfit.pth", "do not fit the network", "size mismatch"),
    case("unknown backbone", write_unbuildable, "unbuildable.pth", "cannot be built", "'nothing'"),
]


@pytest.mark.parametrize(("make", "expected"), CHECKPOINTS)
def test_checkpoint(
    capsys: pytest.CaptureFixture[str], world: World, make: Callable[[World], Path], expected: tuple[str, ...]
) -> None:
    path = make(world)
    check_refused(capsys, world, ["predict", path, world.data / "val2014"], expected)
    check_refused(capsys, world, ["test", path, world.config], expected)


def test_checkpoint_of_another_scenario(capsys: pytest.CaptureFixture[str], world: World) -> None:
    advice = "test it with the config it was trained with"
    other = tiny.write_stage(world.root / "a.pth", ("ant", "eel"))
    check_refused(capsys, world, ["test", other, world.config], ("a.pth", "class 1 is 'eel'", "'bee'", advice))
    between = tiny.write_stage(world.root / "b.pth", tiny.CLASSES[:3])
    check_refused(capsys, world, ["test", between, world.config], ("b.pth", "3 classes", "2, 4", advice))
    longer = tiny.write_stage(world.root / "c.pth", (*tiny.CLASSES, "eel", "fox"))
    check_refused(capsys, world, ["test", longer, world.config], ("c.pth", "class 4 is 'eel'", "'nothing'", advice))


def empty_folder(world: World) -> Path:
    (world.root / "empty").mkdir()
    return world.root / "empty"


def no_image(world: World) -> Path:
    (world.root / "x.jpg").write_text("no image")
    return world.root / "x.jpg"


IMAGES = [
    case("missing", lambda w: w.root / "photo.jpg", "photo.jpg does not exist", "expected an image or a folder"),
    case("empty folder", empty_folder, "empty holds no images", ".jpg"),
    case("damaged", lambda w: tiny.truncate(w.data / "val2014/0.jpg"), "0.jpg", "is a damaged image", "replace it"),
    case("damaged in a folder", lambda w: tiny.truncate(w.data / "val2014/1.jpg").parent, "1.jpg", "damaged image"),
    case("no image", no_image, "x.jpg", "is no image", "replace it"),
]


@pytest.mark.parametrize(("make", "expected"), IMAGES)
def test_predict(
    capsys: pytest.CaptureFixture[str], world: World, make: Callable[[World], Path], expected: tuple[str, ...]
) -> None:
    stage = tiny.write_stage(world.root / "session_0.pth")
    check_refused(capsys, world, ["predict", stage, make(world)], expected)


def official_krt() -> dict[str, torch.Tensor]:
    return to_official(tiny.stage_content(head=tiny.ICA)["state_dict"])


def stage_of_timm(world: World) -> Path:
    network = IncrementalNetwork({"name": "resnet10t"}, {"type": "linear"}, 32)
    network.grow(2)
    content = {**tiny.stage_content(), "network": network.spec, "state_dict": network.state_dict()}
    return world.weights(content, "timm.pth")


def without(prefix: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in official_krt().items() if not name.startswith(prefix)}


CONVERT = [
    ([], lambda w: w.root / "none.pth", ("none.pth does not exist", "expected")),
    ([], lambda w: w.config, ("run.py", "cannot be read as tensors")),
    ([], lambda w: w.weights({"a": torch.ones(1)}), ("weights.pth", "no heads", "KRT checkpoint with ICA")),
    ([], lambda w: w.weights({"a": 1}), ("weights.pth", "holds no state dict", "released KRT checkpoint")),
    ([], lambda w: w.weights({**official_krt(), "x": torch.ones(1)}), ("weights.pth", "1 unknown entries", "x")),
    (["--classes", "voc"], lambda w: w.weights(without("cls_token")), ("weights.pth is incomplete", "head.kt_token")),
    (["--classes", "voc"], lambda w: w.weights(without("tab.norm1")), ("weights.pth", "norm1", "do not fit")),
    ([], lambda w: w.weights(official_krt()), ("2 classes", "--classes FILE")),
    (["--classes", "x.txt"], lambda w: w.weights(official_krt()), ("--classes x.txt", "no such file")),
    (["--classes", "voc", "--heads", "5"], lambda w: w.weights(official_krt()), ("weights.pth", "num_heads 5")),
    ([], stage_of_timm, ("no counterpart in the official KRT layout",)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "make", "expected"), CONVERT)
def test_convert(
    capsys: pytest.CaptureFixture[str],
    world: World,
    words: list[str],
    make: Callable[[World], Path],
    expected: tuple[str, ...],
) -> None:
    (world.root / "out.pth").write_text("an older file")
    check_refused(capsys, world, ["convert", make(world), world.root / "out.pth", *words], expected)


# -- disks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["log_root", "checkpoint_root"])
def test_output_below_a_file(capsys: pytest.CaptureFixture[str], world: World, key: str) -> None:
    file = world.root / "file"
    file.touch()
    for value in (file, file / "below"):
        words = ["train", world.config, f"{key}={value}"]
        check_refused(capsys, world, words, (f"{value}", f"{file} is a file", f"set {key} to a folder"))


@pytest.mark.parametrize("key", ["log_root", "checkpoint_root"])
def test_output_in_a_read_only_folder(
    capsys: pytest.CaptureFixture[str], world: World, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = world.root / "locked"
    locked.mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and allowed(path, mode))
    words = ["train", world.config, f"{key}={locked}"]
    check_refused(capsys, world, words, (str(locked), "is read-only", "write permission", key))


def run_limited(world: World, limit: int, *words: object) -> subprocess.CompletedProcess[str]:
    """The command line where no file may grow beyond ``limit`` bytes: the rest of a write fails."""

    def begin() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return tiny.fork_cli(*words, cwd=world.root, begin=begin)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_checkpoint_that_cannot_be_completed_leaves_the_older_one(world: World) -> None:
    target = tiny.write_stage(world.root / "target.pth")
    source = world.weights(official_krt())
    before = tiny.snapshot(world.root)
    limit = target.stat().st_size // 2
    done = run_limited(world, limit, "convert", source, target, "--classes", "voc", "--heads", "4")
    check_sentence(done.returncode, done.stderr, ("target.pth could not be written", "File too large", "make room"))
    assert tiny.snapshot(world.root) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_run_whose_state_cannot_be_saved_stops_and_can_be_resumed(
    capsys: pytest.CaptureFixture[str], world: World
) -> None:
    assert tiny.call(capsys, "train", world.config, "train_cfg.stop_after_session=0")[0] == 0
    before = tiny.snapshot(world.root / "saved")
    done = run_limited(world, 1_000_000, "train", world.config, "--resume")
    check_sentence(done.returncode, done.stderr, ("resume.pth could not be written", "File too large", "--resume"))
    assert tiny.snapshot(world.root / "saved") == before
    results = json.loads((world.root / "logs" / world.run / "results.json").read_text())
    assert len(results["sessions"]) == 1
    done = tiny.fork_cli("train", world.config, "--resume", cwd=world.root)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((world.root / "logs" / world.run / "results.json").read_text())["sessions"]) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; only a privileged user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Take all but ``leave`` bytes of the disk."""
    filler = folder / "filler"
    state = os.statvfs(folder)
    filler.write_bytes(b"0" * (state.f_bavail * state.f_frsize - leave))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
@pytest.mark.parametrize("leave", [0, 8192])
def test_full_disk_below_the_logs(
    capsys: pytest.CaptureFixture[str], world: World, small_disk: Path, leave: int
) -> None:
    words = ["train", world.config, f"log_root={small_disk}"]
    assert tiny.call(capsys, *words, "train_cfg.stop_after_session=0")[0] == 0
    run = small_disk / world.run
    before = (run / "results.json").read_bytes()
    fill(small_disk, leave)
    done = tiny.fork_cli(*words, "--resume", cwd=world.root)
    check_sentence(done.returncode, done.stderr, (str(run), "No space left on device", "make room", "--resume"))
    assert (run / "results.json").read_bytes() == before
    assert not list(small_disk.rglob("*.tmp"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a tmpfs")
def test_read_only_disk(capsys: pytest.CaptureFixture[str], world: World, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    words = ["train", world.config, f"checkpoint_root={small_disk}"]
    check_refused(capsys, world, words, (str(small_disk), "is read-only", "checkpoint_root"))
