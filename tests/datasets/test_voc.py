from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcil.datasets.voc import VocDataset, load_voc_split
from mlcil.errors import UserError
from mlcil.protocols import VOC_CLASSES

Objects = Sequence[tuple[str, int | None]]


def xml(objects: Objects) -> str:
    """Every object also has a part with misleading fields."""
    text = "<annotation><filename>x</filename><difficult>1</difficult>"
    for name, difficult in objects:
        flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        text += (
            f"<object><part><name>person</name><difficult>{1 - (difficult or 0)}</difficult></part>"
            f"<name>{name}</name>{flag}</object>"
        )
    return text + "</annotation>"


def make(root: Path, objects: Mapping[str, Objects], split: str = "trainval", ending: str = "\n") -> Path:
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(objects) + ending)
    for name, found in objects.items():
        (root / "Annotations" / f"{name}.xml").write_text(xml(found))
        Image.new("RGB", (2, 3)).save(root / "JPEGImages" / f"{name}.jpg")
    return root


MADE: dict[str, Objects] = {
    "b": [("cat", 0), ("cat", 1), ("dog", 1)],
    "a": [("dog", 1), ("dog", 1)],
    "d": [],
    "c": [("dog", None), ("bird", 1)],
}


@pytest.mark.parametrize(
    ("difficult", "labels"),
    [
        # columns bird, cat, dog
        ("negative", [[0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]),
        ("positive", [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]]),
        ("ignore", [[0, 1, -1], [0, 0, -1], [0, 0, 0], [-1, 0, 1]]),
    ],
)
def test_difficult_objects(tmp_path: Path, difficult: str, labels: list[list[int]]) -> None:
    table = load_voc_split(make(tmp_path, MADE), "trainval", classes=("bird", "cat", "dog"), difficult=difficult)
    assert table.ids == tuple(MADE)
    assert table.files == tuple(tmp_path / "JPEGImages" / f"{name}.jpg" for name in MADE)
    assert table.labels_NC.dtype == np.int8
    np.testing.assert_array_equal(table.labels_NC, labels)
    np.testing.assert_array_equal(table.selects_NC, np.array(labels) == 1)
    table.check_files()


def test_default_columns_are_voc(tmp_path: Path) -> None:
    assert load_voc_split(make(tmp_path, MADE), "trainval").classes == VOC_CLASSES


@pytest.mark.parametrize("ending", ["\n", "", "\n\n \n", "\r\n"])
def test_the_last_line_is_kept(tmp_path: Path, ending: str) -> None:
    assert load_voc_split(make(tmp_path, MADE, ending=ending), "trainval").ids == tuple(MADE)


@pytest.mark.parametrize("layout", ["", "VOC2007", "VOCdevkit/VOC2007"])
def test_layouts(tmp_path: Path, layout: str) -> None:
    make(tmp_path / layout, MADE)
    assert load_voc_split(tmp_path, "trainval").files[0] == tmp_path / layout / "JPEGImages" / "b.jpg"


@pytest.mark.parametrize("name", ["b.jpeg", "b.png", "b.JPG"])
def test_endings_of_images(tmp_path: Path, name: str) -> None:
    make(tmp_path, MADE)
    (tmp_path / "JPEGImages" / "b.jpg").rename(tmp_path / "JPEGImages" / name)
    table = load_voc_split(tmp_path, "trainval")
    assert table.files[0].name == name
    table.check_files()


def test_jpg_comes_first(tmp_path: Path) -> None:
    make(tmp_path, MADE)
    Image.new("RGB", (2, 2)).save(tmp_path / "JPEGImages" / "b.png")
    assert load_voc_split(tmp_path, "trainval").files[0].name == "b.jpg"


def test_dataset_with_own_classes(tmp_path: Path) -> None:
    make(tmp_path, {"one": [("robot", 0)], "two": [("drone", 0), ("cat", 1)]})
    make(tmp_path, {"three": [("drone", 0)]}, split="test")
    dataset = VocDataset(tmp_path)
    assert dataset.train().classes == dataset.test().classes == ("cat", "drone", "robot")
    assert dataset.train() is dataset.train()
    assert (dataset.name, dataset.root, dataset.label_cardinality) == ("voc", tmp_path, None)
    make(tmp_path, {"three": [("plane", 0)]}, split="test")
    with pytest.raises(UserError, match=r"three\.xml has an object of class 'plane'.*'test', 1 such"):
        VocDataset(tmp_path).test()


def test_dataset_with_voc_classes(tmp_path: Path) -> None:
    make(tmp_path, MADE)
    make(tmp_path, {"t": [("sofa", 0)]}, split="test")
    dataset = VocDataset(str(tmp_path), label_cardinality=1.4)
    assert dataset.train().classes == VOC_CLASSES
    assert dataset.test().labels_NC[0, VOC_CLASSES.index("sofa")] == 1
    assert VocDataset(tmp_path, classes=["dog", "cat", "bird"]).train().classes == ("dog", "cat", "bird")


def refused(root: Path, split: str = "trainval", **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load_voc_split(root, split, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"voc2007 does not exist.*ImageSets/Main.*--demo"):
        VocDataset(tmp_path / "voc2007").train()
    assert "no ImageSets/Main" in refused(tmp_path)
    make(tmp_path, MADE)
    (tmp_path / "JPEGImages").rename(tmp_path / "Images")
    assert str(tmp_path / "JPEGImages") in refused(tmp_path)


def test_bad_lists(tmp_path: Path) -> None:
    make(tmp_path, MADE)
    path = tmp_path / "ImageSets" / "Main" / "trainval.txt"
    message = refused(tmp_path, "trainvall")
    assert "trainvall.txt" in message
    assert "did you mean 'trainval'" in message
    for text, words in (
        ("\n \n", ["is empty"]),
        ("b\na\nb\n", ["'b' 2 times"]),
        ("b\nx\ny\n", ["2 of 3", "'x'", "JPEGImages"]),
        ("b -1\na 1\n", ["'b -1'", "second column"]),
        ("b.jpg\n", ["'b.jpg'", "without ending"]),
        ("../b\n", ["'../b'", "plain name"]),
    ):
        path.write_text(text)
        message = refused(tmp_path)
        for word in (str(path), *words):
            assert word in message
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["does not exist"]),
        ("", ["not complete xml"]),
        (xml(MADE["a"])[:-9], ["not complete xml"]),
        ("<html></html>", ["<html>", "<annotation>"]),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', ["not complete xml"]),
        ("<annotation><object><part><name>cat</name></part></object></annotation>", ["object 1 has no name"]),
        ("<annotation><object><name>cat</name><difficult>2</difficult></object></annotation>", ["difficult '2'"]),
        (xml([("dgo", 0)]), ["'dgo'", "did you mean 'dog'", "'trainval'", "1 such"]),
    ],
)
def test_bad_annotations(tmp_path: Path, text: str | None, words: list[str]) -> None:
    path = make(tmp_path, MADE) / "Annotations" / "a.xml"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    message = refused(tmp_path)
    for word in (str(path), *words):
        assert word in message


def test_empty_fields_are_not_difficult(tmp_path: Path) -> None:
    path = make(tmp_path, MADE) / "Annotations" / "a.xml"
    path.write_text("<annotation><object><name> cat </name><difficult></difficult></object></annotation>")
    assert load_voc_split(tmp_path, "trainval").labels_NC[1, VOC_CLASSES.index("cat")] == 1


def test_bad_options(tmp_path: Path) -> None:
    assert "did you mean 'ignore'" in refused(tmp_path, difficult="ignored")
    make(tmp_path, MADE)
    assert "'cat' twice" in refused(tmp_path, classes=["cat", "cat"])
    assert "at least one class" in refused(tmp_path, classes=[])
    with pytest.raises(UserError, match="list of at least one"):
        VocDataset(tmp_path, classes="cat")


def test_no_object_anywhere(tmp_path: Path) -> None:
    make(tmp_path, {"a": [], "b": []})
    with pytest.raises(UserError, match="no object on any of the 2 images"):
        VocDataset(tmp_path).train()
