"""The smallest data sets with one class an image, and a config that trains on them."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny

CLASSES = ("ant", "bee", "cat", "dog")
WNIDS = ("n03", "n01", "n04", "n02")  # the order of wnids.txt is not the sorted one


def write_config(folder: Path, dataset: dict[str, Any], more: str = "") -> Path:
    """A config of sessions of two classes, 32 pixels, whose outputs lie beside it."""
    return tiny.write_config_of(folder, dataset, 32, more)


def cifar_batch(labels: Sequence[int], seed: int = 0, coarse: bool = True) -> dict[str, Any]:
    """One file of CIFAR with random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    if coarse:
        return {"data": pixels, "fine_labels": list(labels), "coarse_labels": [label // 2 for label in labels]}
    return {"data": pixels, "labels": list(labels)}


def cifar_files(name: str, train: int = 8, test: int = 4) -> dict[str, Any]:
    """What the files of CIFAR-10 or CIFAR-100 hold; image k shows class k % 4."""
    if name == "cifar100":
        meta = {"fine_label_names": list(CLASSES), "coarse_label_names": ["insect", "mammal"]}
        return {
            "train": cifar_batch([k % 4 for k in range(train)], 1),
            "test": cifar_batch([k % 4 for k in range(test)], 2),
            "meta": meta,
        }
    batches = {f"data_batch_{i}": cifar_batch([k % 4 for k in range(train)], i, coarse=False) for i in range(1, 6)}
    meta = {"label_names": list(CLASSES)}
    return {**batches, "test_batch": cifar_batch([k % 4 for k in range(test)], 9, coarse=False), "batches.meta": meta}


def cifar_folder(root: Path, name: str = "cifar100", protocol: int = 2, **sizes: int) -> Path:
    """The unpacked folder inside ``root``; returns ``root``."""
    inside = root / {"cifar100": "cifar-100-python", "cifar10": "cifar-10-batches-py"}[name]
    inside.mkdir(parents=True)
    for file, content in cifar_files(name, **sizes).items():
        (inside / file).write_bytes(pickle.dumps(content, protocol=protocol))
    return root


def cifar_archive(root: Path, name: str = "cifar100", **sizes: int) -> Path:
    """The archive inside ``root``; returns its path."""
    folder, archive = {
        "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
        "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    }[name]
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / archive, "w:gz") as out:
        for file, content in cifar_files(name, **sizes).items():
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"{folder}/{file}")
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return root / archive


def class_folders(folder: Path, names: Sequence[str] = CLASSES, images: int = 2, inside: str = "") -> Path:
    """``folder/<name>/<inside>/<k>.png``; test images are others than training images."""
    first = 10_000 if folder.name in ("test", "val") else 0
    for index, name in enumerate(names):
        for k in range(images):
            tiny.write_image(folder / name / inside / f"{name}_{k}.png", seed=first + 100 * index + k)
    return folder


def tiny_imagenet(root: Path, images: int = 2) -> Path:
    """Tiny-ImageNet's layout with four classes and one validation image a class."""
    class_folders(root / "train", WNIDS, images, inside="images")
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    words = ("cat, true cat", "ant", "crane", "crane, bird")
    (root / "words.txt").write_text("".join(f"{w}\t{text}\n" for w, text in zip(WNIDS, words, strict=True)))
    for k, wnid in enumerate(WNIDS):
        tiny.write_image(root / "val" / "images" / f"val_{k}.png", seed=k)
        with open(root / "val" / "val_annotations.txt", "a") as out:
            out.write(f"val_{k}.png\t{wnid}\t0\t0\t63\t63\n")
    return root


def imagenet(root: Path, names: Sequence[str] = ("n01", "n02", "n03", "n04")) -> Path:
    """ImageNet's class folders, two training images and one validation image a class."""
    class_folders(root / "train", names, 2)
    class_folders(root / "val", names, 1)
    return root


def imagenet_lists(root: Path) -> Path:
    """``train_100.txt`` and ``val_100.txt`` beside :func:`imagenet`'s folders; label 0 is n04."""
    imagenet(root)
    label = {"n04": 0, "n02": 1, "n01": 2, "n03": 3}
    for split, images in (("train", 2), ("val", 1)):
        lines = [f"{split}/{name}/{name}_{k}.png {label[name]}" for name in sorted(label) for k in range(images)]
        (root / f"{split}_100.txt").write_text("\n".join(lines) + "\n")
    return root
