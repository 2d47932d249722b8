from pathlib import Path
from typing import Any

import pytest
import tiny_single as tiny

from mlcil.datasets.scenario import Scenario
from mlcil.datasets.tiny_imagenet import TinyImageNetDataset
from mlcil.errors import UserError


def test_official_layout(tmp_path: Path) -> None:
    dataset = TinyImageNetDataset(tiny.tiny_imagenet(tmp_path))
    train, test = dataset.train(), dataset.test()
    assert train.classes == test.classes == tiny.WNIDS  # wnids.txt's order
    assert train.ids[:2] == ("train/n03/images/n03_0.png", "train/n03/images/n03_1.png")
    assert train.labels_NC.argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert test.ids == tuple(f"val/images/val_{k}.png" for k in range(4))
    assert test.labels_NC.argmax(1).tolist() == [0, 1, 2, 3]
    train.check_files()
    test.check_files()
    assert (dataset.name, dataset.task) == ("tiny_imagenet", "single_label")


def test_sorted_ids_mean_another_order_for_the_same_seed(tmp_path: Path) -> None:
    root = tiny.tiny_imagenet(tmp_path)
    ordered = TinyImageNetDataset(root, class_ids="sorted")
    assert ordered.train().classes == ("n01", "n02", "n03", "n04")
    assert ordered.test().labels_NC.argmax(1).tolist() == [2, 0, 3, 1]
    orders = {ids: Scenario(TinyImageNetDataset(root, ids), 0, 2, "random:0").classes for ids in ("wnids", "sorted")}
    assert orders["wnids"] != orders["sorted"]


def test_readable_names(tmp_path: Path) -> None:
    dataset = TinyImageNetDataset(tiny.tiny_imagenet(tmp_path), names="words")
    assert dataset.train().classes == ("cat", "ant", "crane (n04)", "crane (n02)")


def test_the_folder_may_hold_the_data_set(tmp_path: Path) -> None:
    tiny.tiny_imagenet(tmp_path / "tiny-imagenet-200")
    assert len(TinyImageNetDataset(tmp_path).train()) == 8


def edit(name: str, text: str) -> Any:
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r / "wnids.txt").unlink(), r"wnids.txt does not exist; expected a text file with one class id"),
        (edit("wnids.txt", "\n"), r"wnids.txt is empty; expected one class id a line"),
        (edit("wnids.txt", "n03\nn03\n"), r"wnids.txt names 'n03' twice"),
        (lambda r: (r / "wnids.txt").write_bytes(b"\xff\xfe\x00"), r"wnids.txt cannot be read .*UTF-8"),
        (lambda r: (r / "val/val_annotations.txt").unlink(), r"val_annotations.txt does not exist"),
        (edit("val/val_annotations.txt", "a.png\tn3\n"), r"line 1, gives 'a.png' the class 'n3' \(did you mean 'n0"),
        (edit("val/val_annotations.txt", "a.png n03\n"), r"line 1, gives 'a.png n03' no class; .*behind a tab"),
    ],
)
def test_mistakes(tmp_path: Path, change: Any, message: str) -> None:
    root = tiny.tiny_imagenet(tmp_path)
    change(root)
    with pytest.raises(UserError, match=message):
        TinyImageNetDataset(root).test()


def test_missing_images_and_folders(tmp_path: Path) -> None:
    root = tiny.tiny_imagenet(tmp_path)
    (root / "val" / "images" / "val_2.png").unlink()
    with pytest.raises(UserError, match=r"1 of 4 image files are missing.*val_2.png"):
        TinyImageNetDataset(root).test().check_files()
    for file in (root / "train" / "n01" / "images").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"no image of the training split 'train' shows 'n01'"):
        Scenario(TinyImageNetDataset(root), 0, 2)
    with pytest.raises(UserError, match=r"data folder .*nowhere does not exist"):
        TinyImageNetDataset(tmp_path / "nowhere").train()


def test_options(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class_ids is 'wnid' \(did you mean 'wnids'\?\)"):
        TinyImageNetDataset(tmp_path, class_ids="wnid")
    with pytest.raises(UserError, match=r"names is 'word' \(did you mean 'words'\?\)"):
        TinyImageNetDataset(tmp_path, names="word")
