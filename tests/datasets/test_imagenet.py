from pathlib import Path
from typing import Any

import pytest
import tiny_single as tiny

from mlcil.class_orders import SUBSETS
from mlcil.datasets.imagenet import ImageNetDataset
from mlcil.datasets.scenario import Scenario
from mlcil.errors import UserError
from mlcil.images import Fit


def test_class_folders(tmp_path: Path) -> None:
    dataset = ImageNetDataset(tiny.imagenet(tmp_path))
    train, test = dataset.train(), dataset.test()
    assert train.classes == test.classes == ("n01", "n02", "n03", "n04")
    assert (len(train), len(test), train.ids[2], test.ids[0]) == (8, 4, "train/n02/n02_0.png", "val/n01/n01_0.png")
    assert train.fit == Fit("centre")
    assert (dataset.name, dataset.task) == ("imagenet", "single_label")


@pytest.mark.parametrize(("subset", "classes"), [(2, ("n01", "n02")), (["n04", "n01"], ("n04", "n01"))])
def test_subsets(tmp_path: Path, subset: Any, classes: tuple[str, ...]) -> None:
    dataset = ImageNetDataset(tiny.imagenet(tmp_path), subset=subset)
    assert dataset.train().classes == dataset.test().classes == classes
    assert dataset.train().ids[0] == f"train/{classes[0]}/{classes[0]}_0.png"
    assert len(dataset.test()) == 2


@pytest.mark.parametrize("name", sorted(SUBSETS))
def test_the_two_imagenet_100(tmp_path: Path, name: str) -> None:
    synsets = SUBSETS[name]
    assert (len(synsets), synsets) == (100, tuple(sorted(set(synsets))))
    tiny.imagenet(tmp_path, (*synsets, "n99999999"))
    dataset = ImageNetDataset(tmp_path, subset=name)
    assert dataset.train().classes == synsets
    assert len(dataset.train()) == 200


def test_lists(tmp_path: Path) -> None:
    dataset = ImageNetDataset(tiny.imagenet_lists(tmp_path), train_list="train_100.txt", test_list="val_100.txt")
    train, test = dataset.train(), dataset.test()
    assert train.classes == test.classes == ("n04", "n02", "n01", "n03")  # the labels' order
    assert train.ids[0] == "train/n01/n01_0.png"
    assert train.labels_NC[0].tolist() == [0, 0, 1, 0]
    train.check_files()
    test.check_files()


def test_lists_of_a_flat_folder_name_classes_by_label(tmp_path: Path) -> None:
    for split in ("train", "val"):
        lines = [f"{split}/im age_{k}.png {k % 2}" for k in range(4)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines))
    dataset = ImageNetDataset(tmp_path, train_list="train.txt", test_list="val.txt")
    assert dataset.train().classes == ("0", "1")
    assert dataset.train().ids[1] == "train/im age_1.png"


LISTS = {"train_list": "train_100.txt", "test_list": "val_100.txt"}


def edit(name: str, text: str) -> Any:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: (r / "train").rename(r / "x"), {}, r"folder .*train cannot be listed \(No such file.*one folder of"),
        (lambda r: (r / "val").rename(r / "x"), {}, r"folder .*val cannot be listed"),
        (None, {"subset": 9}, r"subset is 9, but folder .*train has 4 classes; expected a number from 1 to 4"),
        (None, {"subset": 0}, r"subset is 0"),
        (None, {"subset": True}, r"subset is True"),
        (None, {"subset": "imagenet100"}, r"subset is 'imagenet100' \(did you mean 'imagenet100_dkt'\?\)"),
        (None, {"subset": "imagenet100_dkt"}, r"train has no class 'n01514668'.* among its 4; add the images"),
        (None, {"subset": ["n01", "n5"]}, r"has no class 'n5'"),
        (None, {"train_list": "a.txt"}, r"has train_list alone; give train_list and test_list, or neither"),
        (None, {"test_list": "a.txt"}, r"has test_list alone"),
        (None, {**LISTS, "subset": 2}, r"lists and a subset"),
        (None, {"train_list": "a.txt", "test_list": "b.txt"}, r"a.txt does not exist; expected a text file with"),
        (edit("train_100.txt", "train/n01/a.png\n"), LISTS, r"train_100.txt, line 1, is 'train/n01/a.png'; expected a"),
        (edit("train_100.txt", "a.png -1"), LISTS, r"line 1, is 'a.png -1'"),
        (edit("train_100.txt", "a.png 99999999999999999999"), LISTS, r"line 1, is 'a.png 9999"),
        (edit("train_100.txt", "a.png 0\nb.png 2"), LISTS, r"labels up to 2 but no image of label 1; .*without gaps"),
        (edit("train_100.txt", "a.png 999999999"), LISTS, r"no image of label 0"),
        (edit("train_100.txt", "/etc/a.png 0"), LISTS, r"names '/etc/a.png'; expected a path inside"),
        (edit("train_100.txt", "../a.png 0"), LISTS, r"names '../a.png'; expected a path inside"),
        (edit("val_100.txt", "val/n01/a.png 4"), LISTS, r"val_100.txt has the label 4, but the training list has .*3"),
    ],
)
def test_mistakes(tmp_path: Path, change: Any, options: dict[str, Any], message: str) -> None:
    root = tiny.imagenet_lists(tmp_path)
    if change:
        change(root)
    with pytest.raises(UserError, match=message):
        Scenario(ImageNetDataset(root, **options), 0, 1)
