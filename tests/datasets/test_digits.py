"""The embedded demo scenes: the same everywhere, honest labels, and a cache that mends itself."""

import hashlib
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mlcil.datasets.digits import (
    DIGITS_PER_SCENE,
    LABEL_CARDINALITY,
    NAMES,
    build_digit_scenes,
    default_cache,
    digit_pool,
    digits_dataset,
)
from mlcil.errors import UserError

SMALL = {"train_images": 24, "test_images": 12, "size": 48, "seed": 3}
SPLITS = {"train2014": "train_images", "val2014": "test_images"}


def digest(root):
    """Relative name -> sha256 of every file."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def instances(root, split):
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Folder of a few scenes; tests that damage it copy it."""
    return build_digit_scenes(tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture
def copy(scenes, tmp_path):
    target = tmp_path / scenes.name
    shutil.copytree(scenes, target)
    return target


def test_same_bytes_in_another_folder(scenes, tmp_path):
    again = build_digit_scenes(tmp_path, **SMALL)
    assert again != scenes
    assert digest(again) == digest(scenes)


@pytest.mark.parametrize(("key", "value"), [("seed", 4), ("size", 40), ("train_images", 25), ("test_images", 13)])
def test_every_parameter_has_its_own_folder(scenes, tmp_path, key, value):
    other = build_digit_scenes(tmp_path, **{**SMALL, key: value})
    assert other.name != scenes.name
    assert digest(other) != digest(scenes)


def test_more_scenes_begin_with_the_same_scenes(scenes, tmp_path):
    more = build_digit_scenes(tmp_path, **{**SMALL, "train_images": SMALL["train_images"] + 2})
    for path in (scenes / "train2014").glob("*.png"):
        assert (more / "train2014" / path.name).read_bytes() == path.read_bytes()


def test_train_and_test_digits_are_disjoint_and_stratified():
    (train, train_labels), (test, test_labels) = digit_pool(0), digit_pool(1)
    from sklearn.datasets import load_digits

    assert len(train) + len(test) == len(load_digits().target)
    assert train.min() >= 0
    assert train.max() <= 1
    seen = {image.tobytes() for image in train}
    assert not seen & {image.tobytes() for image in test}
    share = np.bincount(test_labels) / (np.bincount(test_labels) + np.bincount(train_labels))
    assert len(share) == len(NAMES)
    assert share.max() - share.min() < 0.02


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_coco_format(scenes, split):
    content = instances(scenes, split)
    assert [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])] == list(NAMES)
    images = {image["id"]: image for image in content["images"]}
    assert len(images) == SMALL[SPLITS[split]]
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    assert {a["image_id"] for a in content["annotations"]} == set(images)
    for image in images.values():
        with Image.open(scenes / split / image["file_name"]) as picture:
            assert (picture.size, picture.mode) == ((image["width"], image["height"]), "RGB")
            assert picture.size == (SMALL["size"], SMALL["size"])
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert annotation["iscrowd"] == 0
        assert annotation["area"] == width * height > 0
        assert x >= 0
        assert y >= 0
        assert x + width <= image["width"]
        assert y + height <= image["height"]
    assert {image["file_name"] for image in images.values()} == {p.name for p in (scenes / split).iterdir()}


@pytest.mark.parametrize("split", sorted(SPLITS))
def test_digits_stand_out_from_their_scene(scenes, split):
    """Ink makes a box more varied than noise and shading do."""
    content = instances(scenes, split)
    files = {image["id"]: image["file_name"] for image in content["images"]}
    spread = []
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        grey = np.asarray(Image.open(scenes / split / files[annotation["image_id"]]).convert("L"), float)
        spread.append(np.subtract(*np.percentile(grey[y : y + height, x : x + width], [95, 5])))
    assert np.median(spread) > 60
    assert min(spread) > 25


def test_labels_of_the_table_are_the_annotations(tmp_path):
    data = digits_dataset(tmp_path, **SMALL)
    for table, split in ((data.train(), "train2014"), (data.test(), "val2014")):
        assert tuple(table.classes) == tuple(NAMES)
        assert len(table) == SMALL[SPLITS[split]]
        content = instances(data.root, split)
        category = {c["id"]: NAMES.index(c["name"]) for c in content["categories"]}
        shown = {(a["image_id"], category[a["category_id"]]) for a in content["annotations"]}
        rows, columns = np.nonzero(table.labels_NC == 1)
        assert {(table.ids[r], int(c)) for r, c in zip(rows, columns, strict=True)} == shown
        table.check_files()


def test_several_classes_an_image(tmp_path):
    data = digits_dataset(tmp_path, **{**SMALL, "train_images": 300})
    labels = data.train().labels_NC
    count = labels.sum(axis=1)
    assert set(count.tolist()) == {n for n, p in enumerate(DIGITS_PER_SCENE, start=1) if p > 0}
    assert data.label_cardinality == LABEL_CARDINALITY
    expected = sum(n * p for n, p in enumerate(DIGITS_PER_SCENE, start=1))
    assert pytest.approx(expected) == LABEL_CARDINALITY
    assert abs(count.mean() - expected) < 0.2
    assert (count > 1).mean() > 0.5
    share = labels.mean(axis=0)
    assert share.max() < 2 * share.min(), "classes are about equally frequent"


def test_a_finished_folder_is_reused(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert build_digit_scenes(copy.parent, **SMALL) == copy
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def lose_manifest(root):
    (root / "manifest.json").unlink()


def cut_manifest(root):
    path = root / "manifest.json"
    path.write_text(path.read_text()[:20])


def change_annotations(root):
    path = root / "annotations" / "instances_val2014.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))


def lose_annotations(root):
    (root / "annotations" / "instances_train2014.json").unlink()


def lose_image(root):
    next((root / "train2014").iterdir()).unlink()


def lose_images(root):
    shutil.rmtree(root / "val2014")


def lose_everything(root):
    shutil.rmtree(root)
    root.mkdir()


@pytest.mark.parametrize(
    "damage",
    [lose_manifest, cut_manifest, change_annotations, lose_annotations, lose_image, lose_images, lose_everything],
)
def test_a_damaged_folder_is_made_anew(scenes, copy, damage):
    damage(copy)
    assert digest(copy) != digest(scenes)
    assert build_digit_scenes(copy.parent, **SMALL) == copy
    assert digest(copy) == digest(scenes)
    assert beside_lock(copy.parent) == [copy.name], "temporary folders stayed behind"


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("mlcil.datasets.digits.json.dumps", fail)
    with pytest.raises((OSError, ValueError)):
        build_digit_scenes(tmp_path, **SMALL)
    assert beside_lock(tmp_path) == []


def beside_lock(folder):
    """Names in a folder without the lock files that builders wait on."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def build_into(cache):
    return digest(build_digit_scenes(cache, **SMALL))


def test_two_processes_at_once(scenes, tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(build_into, [tmp_path] * 2)) == [digest(scenes)] * 2
    assert beside_lock(tmp_path) == [scenes.name]


def test_several_processes_on_a_damaged_folder(scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / scenes.name)
    (tmp_path / scenes.name / "manifest.json").write_text("[]")
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(build_into, [tmp_path] * 3)) == [digest(scenes)] * 3


def test_a_cache_that_cannot_be_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="MLCIL_CACHE"):
        build_digit_scenes(tmp_path / "file", **SMALL)


def test_default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("MLCIL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "mlcil"
