"""Mistakes of users with images of one class each, through the command line: one sentence, nothing written."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_single
from PIL import Image
from test_cli_bad_input import check_refused, check_sentence

MAKE: dict[str, Callable[[Path], Any]] = {
    "cifar100": tiny_single.cifar_folder,
    "cifar10": lambda root: tiny_single.cifar_folder(root, "cifar10"),
    "tiny_imagenet": tiny_single.tiny_imagenet,
    "imagenet": tiny_single.imagenet_lists,
    "folder": lambda root: (
        tiny_single.class_folders(root / "train", images=4),
        tiny_single.class_folders(root / "test"),
    ),
    "digits_single": lambda root: root.mkdir(),
}


class World:
    """A folder with a data set, a config and whatever a case adds."""

    def __init__(self, root: Path, kind: str, **options: Any) -> None:
        self.root, self.data = root, root / "data"
        MAKE[kind](self.data)
        options = {"verify": False, **options} if kind.startswith("cifar") else options
        place = {} if kind == "digits_single" else {"root": str(self.data)}
        self.config = tiny_single.write_config(root, {"type": kind, **place, **options})
        self.run = f"{root.name}_run"

    @property
    def cifar(self) -> Path:
        return next(self.data.iterdir())

    def batch(self, name: str = "train", **changes: Any) -> None:
        """Write a file of CIFAR with some entries changed; None removes one."""
        content = {**pickle.loads((self.cifar / name).read_bytes()), **changes}
        kept = {key: value for key, value in content.items() if value is not None}
        (self.cifar / name).write_bytes(pickle.dumps(kept, protocol=2))


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


Case = Callable[[World], object]


def case(name: str, change: Case, *expected: str) -> Any:
    return pytest.param(change, expected, id=name)


def to_archive(world: World, change: Callable[[Path], object] | None = None, without: str = "") -> None:
    """The archive in place of the unpacked folder."""
    folder = world.cifar
    name = {"cifar-100-python": "cifar-100-python.tar.gz", "cifar-10-batches-py": "cifar-10-python.tar.gz"}[folder.name]
    with tarfile.open(world.data / name, "w:gz") as out:
        for file in sorted(folder.iterdir()):
            if file.name != without:
                out.add(file, f"{folder.name}/{file.name}")
            file.unlink()
    folder.rmdir()
    if change is not None:
        change(world.cifar)


def link_inside(path: Path) -> None:
    """A member that is a link to a file outside."""
    with tarfile.open(path, "w:gz") as out:
        for name in ("train", "test", "meta"):
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            out.addfile(member, io.BytesIO())


ANT = list(tiny_single.CLASSES)
AGAIN = "download it again"
CIFAR = [
    case("no data", lambda w: w.data.rename(w.root / "x"), "data folder", "does not exist", "--demo"),
    case("another folder", lambda w: w.cifar.rename(w.data / "x"), "neither cifar-100-python", "tar.gz", "put the"),
    case("a file missing", lambda w: (w.cifar / "test").unlink(), "test cannot be read", "No such file", "unpack"),
    case("a folder", lambda w: ((w.cifar / "test").unlink(), (w.cifar / "test").mkdir()), "but a folder"),
    case("empty", lambda w: (w.cifar / "train").write_bytes(b""), "train is damaged", "0 bytes", AGAIN),
    case("cut off", lambda w: tiny.truncate(w.cifar / "train"), "train is damaged", "bytes", AGAIN),
    case("text", lambda w: (w.cifar / "meta").write_text("<html>"), "meta is damaged or no pickle", AGAIN),
    case("a list", lambda w: (w.cifar / "meta").write_bytes(pickle.dumps([1])), "meta holds a list", "a dictionary"),
    case(
        "code",
        lambda w: (w.cifar / "train").write_bytes(pickle.dumps(Harm(w.root / "harm"))),
        "train holds code (posix.mkdir)", "not run", AGAIN,
    ),
    case("code in a value", lambda w: w.batch(data=Harm(w.root / "harm")), "holds code (posix.mkdir)", "not run"),
    case("no names", lambda w: w.batch("meta", fine_label_names=None), "meta of", "lacks 'fine_label_names'", AGAIN),
    case("names twice", lambda w: w.batch("meta", fine_label_names=["a", "a"]), "meta of", "names 'a' twice"),
    case("no labels", lambda w: w.batch(fine_labels=None), "train of", "lacks 'fine_labels'", "'data'", AGAIN),
    case("no pixels", lambda w: w.batch(data=None), "train of", "lacks 'data'", AGAIN),
    case("other pixels", lambda w: w.batch(data=np.zeros((8, 100), np.uint8)), "uint8 (8, 100)", "rows of 3072"),
    case("float pixels", lambda w: w.batch(data=np.zeros((8, 3072), "f4")), "float32 (8, 3072)", "uint8 rows"),
    case("pixels as a list", lambda w: w.batch(data=[1, 2]), "'data' in train", "is list", "uint8 rows"),
    case("fewer labels", lambda w: w.batch(fine_labels=[0, 1]), "8 images and 2 labels", "one label per image"),
    case("labels of words", lambda w: w.batch(fine_labels=["a"] * 8), "'fine_labels' in train", "no list of whole"),
    case("labels of fractions", lambda w: w.batch(fine_labels=[0.5] * 8), "'fine_labels' in train", "no list of whole"),
    case("labels in lists", lambda w: w.batch(fine_labels=[[0]] * 8), "'fine_labels' in train", "no list of whole"),
    case("a label too high", lambda w: w.batch(fine_labels=[0, 1, 2, 4] * 2), "the label 4", "0 to 3", "one data set"),
    case("a negative label", lambda w: w.batch(fine_labels=[-1] * 8), "the label -1", "0 to 3"),
    case("a class without images", lambda w: w.batch(fine_labels=[0, 1, 2, 2] * 2), "'dog'", "at least one image a"),
    case("archive cut off", lambda w: to_archive(w, tiny.truncate), "tar.gz is cut off or no archive", AGAIN),
    case("archive of text", lambda w: to_archive(w, lambda p: p.write_text("x")), "tar.gz is cut off or no", AGAIN),
    case("archive empty", lambda w: to_archive(w, lambda p: p.write_bytes(b"")), "tar.gz is cut off or no", AGAIN),
    case("archive incomplete", lambda w: to_archive(w, without="train"), "lacks cifar-100-python/train", AGAIN),
    case("archive of links", lambda w: to_archive(w, link_inside), "lacks cifar-100-python/", AGAIN),
]  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="the names of the code in the pickles")
@pytest.mark.parametrize(("change", "expected"), CIFAR)
def test_cifar(capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Case, expected: tuple[str, ...]) -> None:
    world = World(tmp_path, "cifar100")
    change(world)
    check_refused(capsys, world, ["train", world.config], expected)  # type: ignore[arg-type]
    assert not (tmp_path / "harm").exists()


def test_files_that_are_not_the_official_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for kind in ("cifar10", "cifar100"):
        (tmp_path / kind).mkdir()
        world = World(tmp_path / kind, kind)
        words = ["train", world.config, "scenario.dataset.verify=True"]
        check_refused(capsys, world, words, ("has the MD5 sum", "official", "verify=False"))  # type: ignore[arg-type]
        to_archive(world)
        check_refused(capsys, world, words, ("tar.gz has the MD5 sum", "verify=False"))  # type: ignore[arg-type]
        code, out, err = tiny.call(capsys, "train", world.config, "--check")
        assert (code, err) == (0, "")
        assert "can be trained" in out


def listed(world: World, line: str, file: str = "train_100.txt") -> None:
    """One more line of a list."""
    with open(world.data / file, "a") as out:
        out.write(line + "\n")


LISTS = ["scenario.dataset.train_list=train_100.txt", "scenario.dataset.test_list=val_100.txt"]
LIST_CASES = [
    case("no list", lambda w: (w.data / "val_100.txt").unlink(), "val_100.txt does not exist", "add it"),
    case("no image", lambda w: listed(w, "train/n04/lost.png 0"), "lost.png", "1 of 9"),
    case("a gap", lambda w: listed(w, "train/n04/n04_0.png 6"), "no image of label 4", "without gaps"),
    case("no label", lambda w: listed(w, "train/n04/n04_0.png"), "line 9", "a space and a label"),
    case("outside", lambda w: listed(w, "../x.png 0"), "'../x.png'", "a path inside"),
    case("another label", lambda w: listed(w, "val/n04/n04_0.png 7", "val_100.txt"), "label 7", "0 to 3"),
]


@pytest.mark.parametrize(("change", "expected"), LIST_CASES)
def test_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path, change: Case, expected: tuple[str, ...]) -> None:
    world = World(tmp_path, "imagenet")
    change(world)
    check_refused(capsys, world, ["train", world.config, *LISTS], expected)  # type: ignore[arg-type]


FILES = [
    ("tiny_imagenet", case("no list", lambda w: (w.data / "wnids.txt").unlink(), "wnids.txt does not exist", "add it")),
    ("tiny_imagenet", case("no image", lambda w: (w.data / "val/images/val_1.png").unlink(), "1 of 4", "val_1")),
    ("tiny_imagenet", case("no split", lambda w: (w.data / "val/val_annotations.txt").unlink(), "val_annotations.txt")),
    ("imagenet", case("no split", lambda w: (w.data / "val").rename(w.data / "x"), "val cannot be listed", "one")),
    ("folder", case("no data", lambda w: w.data.rename(w.root / "x"), "data folder", "does not exist", "--demo")),
    ("folder", case("no test", lambda w: (w.data / "test").rename(w.data / "x"), "train/ but neither test/ nor val/")),
    ("folder", case("other class", lambda w: (w.data / "test/eel").mkdir(), "'eel'", "same class folders")),
    ("folder", case("empty class", lambda w: (w.data / "train/eel").mkdir(), "'eel'", "at least one image a class")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "change", "expected"), [pytest.param(k, *c.values, id=f"{k} {c.id}") for k, c in FILES]
)
def test_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, change: Case, expected: tuple[str, ...]
) -> None:
    world = World(tmp_path, kind)
    change(world)
    words = ["train", world.config, "scenario.increment=1"]
    check_refused(capsys, world, words, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["train/ant/ant_1.png", "test/bee/bee_0.png"])
def test_a_damaged_image_during_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str) -> None:
    world = World(tmp_path, "folder")
    tiny.truncate(world.data / file)
    code, _, err = tiny.call(capsys, "train", world.config)
    check_sentence(code, err, (file, "is a damaged image", "bytes", "replace it or remove it from the data"))


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("CMYK", "jpg"), ("LA", "png"), ("P", "png"), ("1", "png")])
def test_grey_and_other_images_are_trained_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mode: str, suffix: str
) -> None:
    world = World(tmp_path, "folder")
    for path in [*world.data.rglob("*_0.png"), *world.data.rglob("*_1.png")]:
        image = Image.open(path).convert(mode)
        path.unlink()
        image.save(path.with_suffix(f".{suffix}"))
    code, _, err = tiny.call(capsys, "train", world.config, "train_cfg.stop_after_session=0")
    assert (code, err) == (0, "")


def test_a_file_that_is_no_image(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    world = World(tmp_path, "folder")
    (world.data / "train" / "ant" / "ant_0.png").write_text("<html>404</html>")
    code, _, err = tiny.call(capsys, "train", world.config)
    check_sentence(code, err, ("train/ant/ant_0.png", "no image"))


METHOD_WORDS = [
    (["scenario.max_sessions=0"], ("max_sessions is 0", "at least 1")),
    (["scenario.joint=True", "scenario.cumulative=True"], ("scenario.joint and scenario.cumulative", "choose one")),
    (["local_accuracy=offical"], ("local_accuracy is 'offical'", "did you mean 'official'?")),
    (["method.type=ABD"], ("ABD needs the outputs of all classes", "'full_linear'")),
    (["method.type=RDFCIL", "method.inversion.iteration=5"], ("method.inversion", "did you mean 'iterations'?")),
    (["method.type=RDFCIL", "method.inversion.width=0"], ("method.inversion.width is 0", "at least 1 or None")),
    (["method.type=RDFCIL", "method.inversion.iterations=0"], ("method.inversion.iterations is 0", "at least 1")),
    (
        ["method.type=RDFCIL", "method.inversion.precision=fp8"],
        ("inversion.precision is 'fp8'", "'fp32', 'bf16'"),
    ),
    (["method.type=SingleLabelBiC"], ("SingleLabelBiC replays stored images", "herding_coreset")),
    (["method.type=SingleLabelLwFMC", "method.variant=x"], ("variant 'x'", "sigmoid, softmax")),
]


@pytest.mark.parametrize(("words", "expected"), METHOD_WORDS)
def test_options_of_methods(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: tuple[str, ...]
) -> None:
    world = World(tmp_path, "digits_single")
    check_refused(capsys, world, ["train", world.config, *words], expected)  # type: ignore[arg-type]


def test_a_head_smaller_than_the_scenario(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    world = World(tmp_path, "digits_single")
    words = ["network.head={'type':'full_linear','num_classes':3}", "method.type=SingleLabelFinetune"]
    for command in ("plan", "train"):
        expected = ("network.head.num_classes is 3", "10 classes", "network.head.num_classes=10")
        check_refused(capsys, world, [command, world.config, *words], expected)  # type: ignore[arg-type]


_SMALL = "'dim':8,'depth':1,'heads':2"
DKT = ["method.type=DKT", f"network.backbone={{'name':'dkt',{_SMALL}}}", "network.head={'type':'dkt','num_heads':2}"]
DAFORMER = [
    "method.type=DAFormer",
    f"network.backbone={{'name':'daformer',{_SMALL}}}",
    "network.head={'type':'daformer','num_heads':2}",
]
WORDS = [
    (["scenario.increment=None", "scenario.num_sessions=11"], ("num_sessions is 11", "only 10 classes", "at most 10")),
    (["scenario.increment=None", "scenario.num_sessions=0"], ("num_sessions is 0", "at least 1")),
    (["scenario.num_sessions=5"], ("exactly one of increment", "scenario.num_sessions=10")),
    (["scenario.increment=None", "scenario.num_sessions=4", "scenario.base=5"], ("5 classes after a base of 5",)),
    (["scenario.increment=12"], ("10 classes", "sessions of 12", "increment=10")),
    (["scenario.class_order=numpy:"], ("'numpy:'", "whole number")),
    (["scenario.class_order=dytox_cifar100_1"], ("orders 100 classes", "has 10")),
    (["scenario.class_order=[1,2]"], ("list of positions", "every number from 0 to 9 once")),
    (["scenario.class_order=random:-1"], ("'random:-1'", "whole number")),
    (["train_transform.crop=pad"], ("train_transform.crop is 'pad'", "did you mean 'padded'?")),
    (["train_transform.crop=padded", "train_transform.fill=grey"], ("train_transform.fill is 'grey'", "'black'")),
    (["train_transform.policy=auto"], ("train_transform.policy is 'auto'", "'autoaugment_cifar10'")),
    (["train_transform.policy=rand-m9-inc0"], ("'rand-m9-inc0'", "with inc1", "rand-m9-mstd0.5-inc1")),
    (["train_transform.policy=rand-m12-inc1"], ("'rand-m12-inc1'", "0 to 10")),
    (["train_transform.policy=rand-x3-inc1"], ("'x3' is not understood", "rand-m9-mstd0.5-inc1")),
    (["train_transform.jitter.brightnes=1"], ("'brightnes' in train_transform.jitter", "did you mean 'brightness'?")),
    (["train_transform.hole=x"], ("train_transform.hole is 'x'", "whole number")),
    (["train_transform.cutout=half"], ("train_transform.cutout is 'half'", "from 0 to 1")),
    (["train_transform.cutout=16"], ("train_transform.cutout is 16", "from 0 to 1")),
    (["train_transform.flip=yes"], ("train_transform.flip is 'yes'", "True or False")),
    (["train_transform.corp=padded"], ("'corp' in train_transform", "did you mean 'crop'?")),
    (["train_dataloader.drop_last=2"], ("train_dataloader.drop_last is 2", "True or False")),
    (["test_dataloader.drop_last=True"], ("'drop_last' in test_dataloader",)),
    (["scenario.dataset.type=digit_single"], ("'digit_single'", "did you mean 'digits_single'?")),
    (["scenario.dataset.root=x"], ("'root' in scenario.dataset",)),
    (["method.type=DKT"], ("backbone name 'dkt'", "head type 'dkt'")),
    (["method.type=DAFormer"], ("head type 'daformer'",)),
    ([*DKT, "network.backbone.heads=5"], ("width 8 is not divisible by heads 5",)),
    ([*DKT, "network.backbone.stem=mnist"], ("stem 'mnist' is unknown", "'cifar'")),
    ([*DKT, "network.head.num_heads=3"], ("not divisible", "3")),
    ([*DKT, "network.head.edition=M"], ("'edition' in network.head",)),
    ([*DKT, "method.finetuning={'epoch':3}"], ("unknown key 'epoch' in method.finetuning", "did you mean 'epochs'?")),
    ([*DKT, "method.finetuning={'epochs':-3}"], ("method.finetuning.epochs is -3", "at least 0")),
    ([*DKT, "method.finetuning={'lr':'x'}"], ("method.finetuning.lr is 'x'", "above 0")),
    ([*DKT, "memory={'total':9,'quota':'half'}"], ("quota 'half' is unknown", "'ceil' or 'floor'")),
    ([*DKT, "memory={'total':9,'views':'both'}"], ("views 'both' is unknown", "'test' or 'train'")),
    ([*DAFORMER, "network.head.edition=L"], ("edition 'L' is unknown", "'M'")),
    ([*DAFORMER, "network.backbone.patch=5"], ("image_size 32 is no multiple", "5 pixels")),
    ([*DAFORMER, "method.distillation=knn"], ("distillation 'knn' is unknown", "neighbours")),
    (["train_cfg.repeated_augmentation=0"], ("train_cfg.repeated_augmentation is 0", "at least 1")),
    (["optim_wrapper.rho=3"], ("'rho' in optim_wrapper",)),
    (["optim_wrapper.type=Sharp"], ("optim_wrapper.type is 'Sharp'", "AutocastOptimWrapper")),
    ([*DAFORMER, "method.rho=-1"], ("method.rho is -1", "above 0")),
    ([*DAFORMER, "method.mixup={'alpha':0}"], ("method.mixup.alpha is 0", "above 0")),
    ([*DAFORMER, "method.mixup={'beta':1}"], ("unknown key 'beta' in method.mixup",)),
    (["optim_wrapper.accumulative_counts=0"], ("accumulative_counts is 0", "at least 1")),
    (["auto_scale_lr={'base_batch_size':0}"], ("auto_scale_lr.base_batch_size is 0", "at least 1")),
    (["auto_scale_lr={'base':256}"], ("'base' in auto_scale_lr",)),
    (["auto_scale_lr={'base_batch_size':8,'published_batch_size':'x'}"], ("published_batch_size is 'x'",)),
    (["network.backbone={'name':'resnet10t','mean':'cifar'}"], ("network.backbone.mean is 'cifar'", "'cifar100'")),
]


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_words(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], expected: tuple[str, ...]) -> None:
    world = World(tmp_path, "digits_single")
    check_refused(capsys, world, ["train", world.config, *words], expected)  # type: ignore[arg-type]


DATASET_WORDS = [
    ("cifar100", "labels=rough", ("labels is 'rough'", "'fine', 'coarse'")),
    ("tiny_imagenet", "class_ids=sort", ("class_ids is 'sort'", "did you mean 'sorted'?")),
    ("imagenet", "subset=imagenet100", ("subset is 'imagenet100'", "'imagenet100_dkt' or 'imagenet100_dytox'")),
    ("imagenet", "train_list=train_100.txt", ("train_list alone", "train_list and test_list")),
    ("folder", "test_share=20", ("test_share is 20", "between 0 and 1")),
    ("folder", "fit=center", ("fit is 'center'", "did you mean 'centre'?")),
    ("folder", "fit.short=3", ("unknown key 'short' in fit", "did you mean 'short_side'?")),
    ("folder", "classes=['ant','cow']", ("no class 'cow'", "among its 4")),
]


@pytest.mark.parametrize(("kind", "word", "expected"), DATASET_WORDS)
def test_options_of_data_sets(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, word: str, expected: tuple[str, ...]
) -> None:
    world = World(tmp_path, kind)
    words = ["train", world.config, f"scenario.dataset.{word}"]
    check_refused(capsys, world, words, expected)  # type: ignore[arg-type]


def test_the_config_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    world: Any = World(tmp_path, "digits_single")
    check_refused(capsys, world, ["config", tmp_path / "no.py"], ("no.py is no config file",))
    check_refused(capsys, world, ["config", world.config, "sed=1"], ("'sed'", "did you mean 'seed'?"))
    check_refused(capsys, world, ["config", world.config, "--output", tmp_path / "a.txt"], ("a.txt", "python file"))
    check_refused(capsys, world, ["config", world.config, "--output", world.data], ("data", "python file"))
    blocked = world.config / "out.py"
    check_refused(capsys, world, ["config", world.config, "--output", blocked], ("out.py could not be written",))


def test_a_run_of_another_crop_is_not_resumed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Metrics of differently cut images are not continued."""
    world: Any = World(tmp_path, "folder")
    assert tiny.call(capsys, "train", world.config, "train_cfg.stop_after_session=0")[0] == 0
    words = ["train", world.config, "--resume", "scenario.dataset.fit=centre"]
    check_refused(capsys, world, words, ("resume.pth", "belongs to protocol", "same data"))
    assert json.loads((tmp_path / "logs" / world.run / "results.json").read_text())["task"] == "single_label"
