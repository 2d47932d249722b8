"""Demo data without a download: scikit-learn's handwritten digits composed into scenes, in COCO format.

Scenes of rendered letters, made the same way, give a small backbone something to be pretrained on that is not
the data of the demo, as ImageNet is for photos.

The 1,797 real 8 x 8 digits are split by index into those for training and those for test scenes. A scene
shows two to four digits of different classes at random places, sizes and contrasts over a shaded
background with strokes and specks. Scenes are written as PNG files with an instances json, so that the demo
takes the same path through the code as MS-COCO.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlcil.datasets.coco import CocoDataset
from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.errors import UserError
from mlcil.files import default_cache

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O, which look like digits
DIGITS_PER_SCENE = (0.0, 0.4, 0.4, 0.2)  # probability of one, two, three, four digits
LABEL_CARDINALITY = 2.8  # their mean
VERSION = 3  # raise when scenes change, so that kept ones are made anew


def digits_dataset(
    cache_dir: str | Path | None = None,
    train_images: int = 1500,
    test_images: int = 500,
    size: int = 64,
    seed: int = 0,
    label_cardinality: float | None = LABEL_CARDINALITY,
    name: str = "digits",
) -> CocoDataset:
    """The scenes as a COCO-format data set, made on first use.

    Args:
        cache_dir: where scenes are kept; default: ``$MLCIL_CACHE`` or ``~/.cache/mlcil``.
        train_images, test_images: scenes a split.
        size: side of the square scenes in pixels.
        seed: of the composition.
        label_cardinality: labels of a scene on average.
        name: for messages and the protocol hash.
    """
    root = build_digit_scenes(cache_dir, train_images=train_images, test_images=test_images, size=size, seed=seed)
    return CocoDataset(root, label_cardinality=label_cardinality, name=name)


def letters_dataset(
    cache_dir: str | Path | None = None,
    train_images: int = 2400,
    test_images: int = 200,
    size: int = 64,
    seed: int = 0,
    label_cardinality: float | None = LABEL_CARDINALITY,
    name: str = "letters",
) -> CocoDataset:
    """Scenes of capital letters, for pretraining; arguments as :func:`digits_dataset`."""
    root = build_digit_scenes(
        cache_dir, train_images=train_images, test_images=test_images, size=size, seed=seed, glyphs="letters"
    )
    return CocoDataset(root, label_cardinality=label_cardinality, name=name)


class SingleDigitsDataset:
    """scikit-learn's 1,797 handwritten digits, one class an image, without a download; three of four train.

    The 8 x 8 grey images become RGB and are enlarged to the network's size. The class order ``as_given`` is zero to
    nine.

    Args:
        name: the name in logs and in the protocol hash.
    """

    task = "single_label"
    label_cardinality = 1.0

    def __init__(self, name: str = "digits_single") -> None:
        self.name = name

    def train(self) -> ImageTable:
        """1,352 images."""
        return self._table("train", 0)

    def test(self) -> ImageTable:
        """445 images, none of them in :meth:`train`."""
        return self._table("test", 1)

    def _table(self, split: str, part: int) -> ImageTable:
        images, labels_N = digit_pool(part)
        grey = np.rint(images * 255).astype(np.uint8)
        return SingleLabelTable(split, NAMES, labels_N, pixels=np.repeat(grey[..., None], 3, axis=3))


def build_digit_scenes(
    cache_dir: str | Path | None = None,
    *,
    train_images: int = 1500,
    test_images: int = 500,
    size: int = 64,
    seed: int = 0,
    glyphs: str = "digits",
) -> Path:
    """Write the scenes unless a complete folder of them is there; returns the folder.

    The folder is made under a temporary name and renamed when complete, one process at a time; a folder whose
    files do not agree with its manifest is made anew.

    Raises:
        UserError: the cache folder cannot be written.
    """
    parameters = {"version": VERSION, "train": train_images, "test": test_images, "size": size, "seed": seed}
    cache = Path(cache_dir) if cache_dir is not None else default_cache()
    name = glyphs + "_{version}_{train}_{test}_{size}px_seed{seed}".format(**parameters)
    target = cache / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / f".{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds, the others wait and find it done
            if not _is_complete(target, parameters):
                _build(target, parameters, glyphs)
    except OSError as error:
        raise UserError(
            f"{target} could not be written ({error.strerror or error}); give the folder write permission or set "
            "MLCIL_CACHE to another one"
        ) from error
    return target


def _build(target: Path, parameters: dict[str, int], glyphs: str) -> None:
    """Make the folder under a temporary name and put it in place of whatever is there."""
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir()
        for split, part in (("train", 0), ("val", 1)):
            count = parameters["train" if part == 0 else "test"]
            pool = digit_pool(part) if glyphs == "digits" else letter_pool(part)
            _write_split(building, split, count, part, parameters["size"], parameters["seed"], pool)
        manifest = {**parameters, "sha256": _digests(building)}
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _digests(root: Path) -> dict[str, str]:
    """SHA-256 of the annotations, and of all images together, a split."""
    found = {}
    for file in sorted((root / "annotations").glob("*.json")):
        found[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    for folder in ("train2014", "val2014"):
        digest = hashlib.sha256()
        for file in sorted((root / folder).glob("*.png")):
            digest.update(file.name.encode() + file.read_bytes())
        found[folder] = digest.hexdigest()
    return found


def _is_complete(root: Path, parameters: dict[str, int]) -> bool:
    try:
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        return bool(manifest == {**parameters, "sha256": _digests(root)})
    except (OSError, ValueError):
        return False


def digit_pool(part: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits for train (part 0) or test (part 1) scenes: images (N, 8, 8) in [0, 1] and labels (N).

    Of each class, every fourth digit is for the test scenes; no digit is in both parts.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = np.asarray(data.target)
    place = np.zeros(len(labels), int)
    for c in range(len(NAMES)):
        own = np.flatnonzero(labels == c)
        place[own] = np.arange(len(own))
    chosen = (place % 4 == 3) == bool(part)
    return np.asarray(data.images)[chosen] / 16.0, labels[chosen]


def letter_pool(part: int, variants: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Letters for train (part 0) or test (part 1) scenes, as :func:`digit_pool`.

    Pillow's own font, slanted, turned and stretched at random, brought to the digits' 8 x 8 resolution.
    """
    font = ImageFont.load_default(size=40)
    images, labels = [], []
    for label, letter in enumerate(LETTERS):
        plain = Image.new("L", (64, 64))
        ImageDraw.Draw(plain).text((32, 32), letter, fill=255, font=font, anchor="mm", stroke_width=1)
        for variant in range(variants):
            rng = np.random.default_rng((part, label, variant))
            turn, slant, wide, high = rng.uniform((-0.2, -0.3, 0.75, 0.75), (0.2, 0.3, 1.15, 1.0))
            matrix = np.array([[wide, slant], [turn, high]])
            shift = 32 - matrix @ (32, 32)
            moved = plain.transform(
                plain.size,
                Image.Transform.AFFINE,
                (*matrix[0], shift[0], *matrix[1], shift[1]),
                Image.Resampling.BILINEAR,
            )
            small = moved.crop((12, 12, 52, 52)).resize((8, 8), Image.Resampling.BOX)
            array = np.asarray(small, np.float64)
            images.append(array / max(float(array.max()), 1.0))
            labels.append(label)
    return np.stack(images), np.asarray(labels)


def _write_split(
    root: Path, split: str, count: int, part: int, size: int, seed: int, pool: tuple[np.ndarray, np.ndarray]
) -> None:
    digits, labels = pool
    names = NAMES if labels.max() < len(NAMES) else tuple(f"letter {letter}" for letter in LETTERS)
    folder = f"{split}2014"
    (root / folder).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        rng = np.random.default_rng((seed, part, image_id))
        scene, boxes = compose_scene(digits, labels, size, rng)
        file_name = f"{image_id:06d}.png"
        Image.fromarray(scene).save(root / folder / file_name)
        images.append({"id": image_id, "file_name": file_name, "width": size, "height": size})
        for label, (x, y, w, h) in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    content = {
        "info": {"description": "scenes of scikit-learn's handwritten digits"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }
    (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))


def compose_scene(
    digits: np.ndarray, labels: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, tuple[int, int, int, int]]]]:
    """One scene.

    Returns:
        uint8 (size, size, 3), and (label, (x, y, width, height)) of each digit.
    """
    canvas = _background(size, rng)
    count = 1 + int(rng.choice(len(DIGITS_PER_SCENE), p=DIGITS_PER_SCENE))
    boxes: list[tuple[int, tuple[int, int, int, int]]] = []
    for label in rng.choice(int(labels.max()) + 1, size=count, replace=False):
        side = int(size * rng.uniform(0.32, 0.45))
        x, y = _free_place(size, side, [box for _, box in boxes], rng)
        glyph = digits[int(rng.choice(np.flatnonzero(labels == label)))]
        mask = np.asarray(
            Image.fromarray((glyph * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC), np.float32
        )
        alpha = np.clip(mask / 255 * 1.15, 0, 1)[..., None] * rng.uniform(0.75, 1.0)
        patch = canvas[y : y + side, x : x + side]
        ink = rng.uniform(175, 255) + rng.uniform(-20, 0, 3)
        canvas[y : y + side, x : x + side] = patch * (1 - alpha) + ink * alpha
        boxes.append((int(label), (x, y, side, side)))
    noise = rng.normal(0, rng.uniform(1, 4), canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8), boxes


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A dark shaded plane with a few thin strokes and specks of a middle tone."""
    corner = rng.uniform(5, 70, (2, 3))
    slope = np.linspace(0, 1, size)[:, None] if rng.random() < 0.5 else np.linspace(0, 1, size)[None, :]
    weight = np.broadcast_to(slope, (size, size))[..., None]
    image = Image.fromarray((corner[0] * (1 - weight) + corner[1] * weight).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    middle = (70, 120)
    for _ in range(int(rng.integers(0, 4))):
        ends = tuple(float(v) for v in rng.uniform(0, size, 4))
        draw.line(ends, fill=tuple(int(v) for v in rng.uniform(*middle, 3)), width=1)
    for _ in range(int(rng.integers(0, 12))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        draw.point((x, y), fill=tuple(int(v) for v in rng.uniform(*middle, 3)))
    return np.asarray(image, np.float32).copy()


def _free_place(
    size: int, side: int, boxes: list[tuple[int, int, int, int]], rng: np.random.Generator
) -> tuple[int, int]:
    """The least covered of up to 30 random places."""
    best, least = (0, 0), float("inf")
    for _ in range(30):
        x, y = (int(v) for v in rng.integers(0, size - side + 1, 2))
        covered = 0
        for bx, by, bw, bh in boxes:
            wide = min(x + side, bx + bw) - max(x, bx)
            high = min(y + side, by + bh) - max(y, by)
            covered += max(wide, 0) * max(high, 0)
        if covered < least:
            best, least = (x, y), covered
        if covered == 0:
            break
    return best
