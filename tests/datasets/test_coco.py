import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlcil.datasets.coco import CocoDataset, load_coco_split
from mlcil.errors import UserError

CATEGORIES = {7: "cat", 2: "zebra", 90: "dog"}
HUGE = 2**70


def instances(images: Any, annotations: Any) -> dict[str, Any]:
    """Annotations are (image, category, crowd)."""
    return {
        "info": {},
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in images],
        "annotations": [
            {"id": 100 + k, "image_id": i, "category_id": c, "iscrowd": crowd, "bbox": [0, 0, 1, 1], "area": 1}
            for k, (i, c, crowd) in enumerate(annotations)
        ],
        "categories": [{"id": i, "name": n, "supercategory": "x"} for i, n in CATEGORIES.items()],
    }


def good() -> dict[str, Any]:
    return instances([30, 4, HUGE, 11], [(30, 7, 0), (30, 7, 0), (30, 90, 1), (4, 90, 1), (HUGE, 2, 1), (HUGE, 2, 0)])


def write(folder: Path, content: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("crowd", "labels", "selects"),
    [
        # columns zebra, cat, dog; rows 4, 11, 30, HUGE
        ("select", [[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]]),
        ("label", [[0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]], [[0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 0]]),
        ("ignore", [[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]]),
    ],
)
def test_labels_and_selection(tmp_path: Path, crowd: str, labels: Any, selects: Any) -> None:
    table = load_coco_split(write(tmp_path, good()), tmp_path / "images", crowd=crowd)
    assert table.classes == ("zebra", "cat", "dog")
    assert table.ids == (4, 11, 30, HUGE)
    assert table.files[0] == tmp_path / "images" / "4.jpg"
    assert table.labels_NC.dtype == np.int8
    assert table.selects_NC.dtype == np.bool_
    np.testing.assert_array_equal(table.labels_NC, labels)
    np.testing.assert_array_equal(table.selects_NC, np.array(selects, bool))
    assert table.rows_of(0, 3).tolist() == np.flatnonzero(np.any(selects, axis=1)).tolist()


def test_missing_iscrowd_is_no_crowd_and_a_bom_is_read(tmp_path: Path) -> None:
    content = instances([1], [(1, 7, 0)])
    del content["annotations"][0]["iscrowd"]
    path = write(tmp_path, "\ufeff" + json.dumps(content))
    assert load_coco_split(path, tmp_path).labels_NC.tolist() == [[0, 1, 0]]


def test_given_classes_are_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path, good())
    table = load_coco_split(path, tmp_path, classes=["dog", "cat", "zebra"])
    plain = load_coco_split(path, tmp_path)
    assert table.classes == ("dog", "cat", "zebra")
    np.testing.assert_array_equal(table.labels_NC, plain.labels_NC[:, ::-1])
    np.testing.assert_array_equal(plain.reorder(table.classes).selects_NC, table.selects_NC)
    with pytest.raises(UserError, match=r"'zebra'.*did you mean 'zebras'"):
        load_coco_split(path, tmp_path, classes=["dog", "cat", "zebras"])
    with pytest.raises(UserError, match="lacks the category 'horse'"):
        load_coco_split(path, tmp_path, classes=["dog", "cat", "zebra", "horse"])


def changed(**changes: Any) -> dict[str, Any]:
    return {**good(), **changes}


def with_entry(key: str, place: int, **fields: Any) -> dict[str, Any]:
    content = good()
    content[key][place].update(fields)
    return content


def without(key: str, place: int, field: str) -> dict[str, Any]:
    content = good()
    del content[key][place][field]
    return content


BAD: dict[str, tuple[Any, list[str]]] = {
    "empty": ("", ["is empty"]),
    "blank": (" \n", ["is empty"]),
    "truncated": (json.dumps(good())[:-40], ["ends too early"]),
    "truncated in a text": ('{"images": [{"file_name": "abc', ["ends too early"]),
    "no json": ("<html></html>", ["is not json"]),
    "a list": ([1, 2], ["json list", "object"]),
    "nested": ("[" * 100_000, ["json"]),
    "no images": ({k: v for k, v in good().items() if k != "images"}, ["lacks 'images'"]),
    "a test-info file": ({k: v for k, v in good().items() if k != "annotations"}, ["lacks 'annotations'"]),
    "images no list": (changed(images={}), ["'images'", "dict", "list"]),
    "image no object": (changed(images=[3]), ["entry 0 of 'images'", "3"]),
    "no image at all": (changed(images=[], annotations=[]), ["'images' is empty"]),
    "no categories at all": (changed(categories=[], annotations=[]), ["'categories' is empty"]),
    "unknown image": (with_entry("annotations", 1, image_id=5), ["1 of 6", "unknown image", "annotation 101", "5"]),
    "unknown category": (with_entry("annotations", 3, category_id=8), ["1 of 6", "unknown category", "103", "8"]),
    "no category_id": (without("annotations", 2, "category_id"), ["entry 2", "102", "no category_id"]),
    "no image_id": (without("annotations", 2, "image_id"), ["entry 2", "no image_id"]),
    "text image_id": (with_entry("annotations", 0, image_id="30"), ["image_id '30'", "whole number"]),
    "list image_id": (with_entry("annotations", 0, image_id=[30]), ["image_id [30]"]),
    "bool category_id": (with_entry("annotations", 0, category_id=True), ["category_id True"]),
    "float id": (with_entry("images", 0, id=30.0), ["id 30.0", "whole number"]),
    "no id": (without("images", 0, "id"), ["entry 0 of 'images'", "no id"]),
    "bad crowd": (with_entry("annotations", 0, iscrowd=2), ["annotation 100", "iscrowd 2"]),
    "double image": (with_entry("images", 1, id=30), ["two images have the id 30"]),
    "double category id": (with_entry("categories", 1, id=7), ["two categories have the id 7"]),
    "double category name": (with_entry("categories", 1, name="cat"), ["two categories are named 'cat'"]),
    "empty category name": (with_entry("categories", 1, name=" "), ["category 2", "non-empty"]),
    "no file_name": (without("images", 0, "file_name"), ["image 30", "file_name None"]),
    "up": (with_entry("images", 0, file_name="../x.jpg"), ["image 30", "leaves the folder"]),
    "up later": (with_entry("images", 0, file_name="a/../../x.jpg"), ["leaves the folder"]),
    "up in Windows": (with_entry("images", 0, file_name="..\\x.jpg"), ["leaves the folder"]),
    "absolute": (with_entry("images", 0, file_name="/etc/x.jpg"), ["leaves the folder"]),
    "drive": (with_entry("images", 0, file_name="C:\\x.jpg"), ["leaves the folder"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_sentences(tmp_path: Path, case: str) -> None:
    content, words = BAD[case]
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        load_coco_split(path, tmp_path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    assert "\n" not in message


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this python reads any number")
def test_an_endless_number_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="json"):
        load_coco_split(write(tmp_path, '{"images": [{"id": ' + "9" * 10_000 + "}]}"), tmp_path)


def test_binary_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\x1f\x8b\xff\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_coco_split(tmp_path / "a.json", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_coco_split(tmp_path / "b.json", tmp_path)
    with pytest.raises(UserError, match="no regular file but a folder"):
        load_coco_split(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"did you mean 'select'.*'ignore'"):
        load_coco_split(tmp_path, tmp_path, crowd="selects")


def make_root(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split, content in (("train2014", good()), ("val2014", instances([8, 1], [(8, 7, 0)]))):
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (root / split).mkdir()
        for image in content["images"]:
            Image.new("RGB", (3, 2)).save(root / split / image["file_name"])
    return root


def test_dataset(tmp_path: Path) -> None:
    dataset = CocoDataset(str(make_root(tmp_path)), label_cardinality=2.9)
    assert (dataset.name, dataset.root, dataset.label_cardinality) == ("coco", tmp_path, 2.9)
    assert dataset.train() is dataset.train()
    assert dataset.train().classes == dataset.test().classes == ("zebra", "cat", "dog")
    assert dataset.test().ids == (1, 8)
    for table in (dataset.train(), dataset.test()):
        table.check_files()
        table.check_files(limit=1)


def test_missing_images_are_counted(tmp_path: Path) -> None:
    table = CocoDataset(make_root(tmp_path)).train()
    for name in ("30.jpg", "4.jpg"):
        (tmp_path / "train2014" / name).unlink()
    with pytest.raises(UserError) as caught:
        table.check_files()
    for word in ("2 of 4", "4.jpg", str(tmp_path / "train2014"), "--demo"):
        assert word in str(caught.value)


def test_missing_image_folder(tmp_path: Path) -> None:
    path = write(tmp_path, good())
    with pytest.raises(UserError, match=r"4 of 4.*nowhere does not exist"):
        load_coco_split(path, tmp_path / "nowhere").check_files()


def test_missing_root_says_what_to_do(tmp_path: Path) -> None:
    dataset = CocoDataset(tmp_path / "coco2014")  # nothing is read yet
    with pytest.raises(UserError) as caught:
        dataset.test()
    for word in (str(tmp_path / "coco2014"), "annotations/instances_train2014.json", "--demo"):
        assert word in str(caught.value)


def test_test_categories_must_agree(tmp_path: Path) -> None:
    path = make_root(tmp_path) / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["categories"][0]["name"] = "cats"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_val2014.json has the category 'cats'.*did you mean 'cat'"):
        CocoDataset(tmp_path).test()
