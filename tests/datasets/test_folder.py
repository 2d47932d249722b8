import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_single as tiny
from PIL import Image
from tiny import truncate, write_image

from mlcil.datasets.folder import FolderDataset
from mlcil.datasets.scenario import Scenario
from mlcil.errors import UserError


def test_train_and_test_folders(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path / "train", images=3)
    tiny.class_folders(tmp_path / "test", images=1, inside="a/b")
    dataset = FolderDataset(tmp_path)
    train, test = dataset.train(), dataset.test()
    assert (train.classes, len(train), len(test)) == (tiny.CLASSES, 12, 4)
    assert train.ids[:2] == ("train/ant/ant_0.png", "train/ant/ant_1.png")
    assert test.ids[3] == "test/dog/a/b/dog_0.png"
    assert train.labels_NC.argmax(1).tolist() == [c for c in range(4) for _ in range(3)]
    train.check_files()
    assert (dataset.name, dataset.task, dataset.label_cardinality) == ("folder", "single_label", 1.0)


def test_val_serves_as_test(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path / "train")
    tiny.class_folders(tmp_path / "val", images=1)
    assert len(FolderDataset(tmp_path).test()) == 4
    assert FolderDataset(tmp_path).test().files[0].parent == tmp_path / "val" / "ant"


def test_a_part_is_set_aside(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path, images=10)
    dataset = FolderDataset(tmp_path, test_share=0.3)
    train, test = dataset.train(), dataset.test()
    assert set(train.ids).isdisjoint(test.ids)
    assert train.labels_NC.sum(0).tolist() == [7] * 4
    assert test.labels_NC.sum(0).tolist() == [3] * 4
    again = FolderDataset(tmp_path, test_share=0.3)
    assert again.test().ids == test.ids
    assert FolderDataset(tmp_path, test_share=0.3, split_seed=1).test().ids != test.ids
    tiny.class_folders(tmp_path, (*tiny.CLASSES, "aardvark"), images=10)
    grown = FolderDataset(tmp_path, test_share=0.3).test()
    assert [i for i in grown.ids if not str(i).startswith("aardvark")] == list(test.ids)


@pytest.mark.parametrize(("images", "aside"), [(1, 0), (2, 1), (3, 1), (20, 4)])
def test_small_classes(tmp_path: Path, images: int, aside: int) -> None:
    tiny.class_folders(tmp_path, images=images)
    dataset = FolderDataset(tmp_path)
    assert dataset.test().labels_NC.sum(0).tolist() == [aside] * 4
    assert dataset.train().labels_NC.sum(0).tolist() == [images - aside] * 4


def test_some_classes_in_a_given_order(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path / "train")
    tiny.class_folders(tmp_path / "test")
    dataset = FolderDataset(tmp_path, classes=["dog", "ant"])
    assert dataset.train().classes == dataset.test().classes == ("dog", "ant")
    assert {str(i).split("/")[1] for i in dataset.test().ids} == {"dog", "ant"}


def test_a_photo_that_is_there_twice_stands_on_one_side(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny.class_folders(tmp_path, images=10)
    for name in tiny.CLASSES:
        for k in range(10):
            shutil.copy(tmp_path / name / f"{name}_{k}.png", tmp_path / name / f"copy_{k}.png")
    dataset = FolderDataset(tmp_path)
    sides = [{file.read_bytes() for file in table.files} for table in (dataset.train(), dataset.test())]
    assert [len(side) for side in sides] == [len(dataset.train()), len(dataset.test())] == [32, 8]
    assert sides[0].isdisjoint(sides[1])
    assert "40 photos are there more than once; each counts once" in caplog.text


def test_a_training_photo_that_is_a_test_photo_is_for_testing(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path / "train")
    tiny.class_folders(tmp_path / "test")
    shutil.copy(tmp_path / "train" / "ant" / "ant_0.png", tmp_path / "test" / "ant" / "again.png")
    dataset = FolderDataset(tmp_path)
    assert (len(dataset.train()), len(dataset.test())) == (7, 9)


@pytest.mark.parametrize("inside", ["", "train"])
def test_a_photo_of_two_classes_is_refused(tmp_path: Path, inside: str) -> None:
    tiny.class_folders(tmp_path / inside)
    tiny.class_folders(tmp_path / "test") if inside else None
    shutil.copy(tmp_path / inside / "ant" / "ant_0.png", tmp_path / inside / "bee" / "x.png")
    with pytest.raises(UserError, match=r"ant_0.png and .*x.png are the same photo in folders of two classes \(1 such"):
        FolderDataset(tmp_path).train()


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path, images=2)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ant" / "Thumbs.db").write_text("")
    (tmp_path / "ant" / "._ant_0.png").write_text("")
    write_image(tmp_path / "bee" / "LOUD.JPG")
    dataset = FolderDataset(tmp_path)
    assert dataset.train().classes == tiny.CLASSES
    assert len(dataset.train()) + len(dataset.test()) == 9


def gradient(mode: str) -> Image.Image:
    values = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    if mode == "I;16":
        return Image.fromarray((values * 257).astype(np.uint16))
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("L", "png"), ("L", "jpg"), ("P", "gif"), ("LA", "png"), ("RGBA", "png"), ("I;16", "png"),
     ("I;16", "tif"), ("CMYK", "jpg")],
)  # fmt: skip
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str, ending: str) -> None:
    tiny.class_folders(tmp_path / "train")
    tiny.class_folders(tmp_path / "test")
    gradient(mode).save(tmp_path / "train" / "ant" / f"ant_0.{ending}")
    (tmp_path / "train" / "ant" / "ant_0.png").unlink() if ending != "png" else None
    image = FolderDataset(tmp_path).train().image(0)
    assert (image.mode, image.size) == ("RGB", (64, 64))
    array = np.asarray(image).astype(int)
    assert np.abs(array - np.linspace(0, 255, 64 * 64).reshape(64, 64, 1)).max() <= 4


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path)
    file = truncate(tmp_path / "ant" / "ant_0.png")
    table = FolderDataset(tmp_path, split_seed=3).train()
    tables = (table, FolderDataset(tmp_path, split_seed=3).test())
    table, row = next((t, t.files.index(file)) for t in tables if file in t.files)
    with pytest.raises(UserError, match=r"ant_0.png is a damaged image .*replace it or remove it from the data"):
        table.image(row)


def test_a_class_without_images_is_refused_by_the_scenario(tmp_path: Path) -> None:
    tiny.class_folders(tmp_path)
    (tmp_path / "eel").mkdir()
    with pytest.raises(UserError, match=r"no image of the training split 'train' shows 'eel'.*allow_empty_classes"):
        Scenario(FolderDataset(tmp_path), 0, 1)
    assert len(Scenario(FolderDataset(tmp_path), 0, 1, allow_empty_classes=True).sessions) == 5


def empty(path: Path) -> None:
    path.mkdir()


def only_train(path: Path) -> None:
    tiny.class_folders(path / "train")


def other_class(path: Path) -> None:
    only_train(path)
    tiny.class_folders(path / "test", (*tiny.CLASSES, "dgo"))


def flat(path: Path) -> None:
    write_image(path / "a.png")


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda p: None, {}, r"data folder .* does not exist; expected a folder with one folder of images per class"),
        (lambda p: p.write_text(""), {}, r"is a file"),
        (empty, {}, r"holds no folders; expected one folder of images per class, so sort the images by class"),
        (flat, {}, r"holds no folders"),
        (only_train, {}, r"has train/ but neither test/ nor val/; expected test images there"),
        (other_class, {}, r"test has the class 'dgo' \(did you mean 'dog'\?\), but .*train has not"),
        (tiny.class_folders, {"classes": ["ant", "be"]}, r"has no class 'be' \(did you mean 'bee'\?\) among its 4"),
        (tiny.class_folders, {"classes": ["ant", "ant"]}, r"classes names 'ant' twice"),
        (tiny.class_folders, {"classes": "ant"}, r"classes is 'ant'; expected a list"),
        (tiny.class_folders, {"test_share": 1.0}, r"test_share is 1.0; expected a number between 0 and 1"),
        (tiny.class_folders, {"test_share": "x"}, r"test_share is 'x'"),
        (tiny.class_folders, {"split_seed": -1}, r"split_seed is -1"),
        (tiny.class_folders, {"fit": "center"}, r"fit is 'center' \(did you mean 'centre'\?\)"),
    ],
)
def test_mistakes(tmp_path: Path, make: Any, options: dict[str, Any], message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(UserError, match=message):
        FolderDataset(tmp_path / "data", **options).train()
