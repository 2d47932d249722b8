"""Makers of files that nobody should have to read: each writes into a folder and returns what is to be opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
from PIL import Image

Make = Callable[[Path], Path]
Change = Callable[[dict[str, Any]], object]
NAN = float("nan")


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


# -- any file ---------------------------------------------------------------------------------------------


def content(name: str, data: bytes | str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return make


def a_folder(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def a_pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def a_link_to_itself(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(folder / name)
        return folder / name

    return make


def a_device(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to("/dev/zero")
        return folder / name

    return make


def instead(make: Make, other: Callable[[str], Make]) -> Make:
    """A pipe or another odd thing in the place of a file."""

    def replace(folder: Path) -> Path:
        path = make(folder)
        path.unlink()
        return other(path.name)(path.parent)

    return replace


# -- checkpoints ------------------------------------------------------------------------------------------


def stage(change: Change | None = None, **values: Any) -> Make:
    """A stage checkpoint after a change of its content."""

    def make(folder: Path) -> Path:
        made = tiny.stage_content()
        made.update(values)
        if change is not None:
            change(made)
        torch.save(made, folder / "s.pth")
        return folder / "s.pth"

    return make


def of_network(**values: Any) -> Make:
    return stage(lambda made: made.update(network={**made["network"], **values}))


def poisoned(value: float) -> Make:
    def change(made: dict[str, Any]) -> None:
        made["state_dict"]["head.linear.weight"][0, 0] = value

    return stage(change)


def cut(share: float) -> Make:
    return lambda folder: tiny.truncate(stage()(folder), share)


def pickled(*call: Any) -> Make:
    return lambda folder: content("s.pth", pickle.dumps(Call(*call), protocol=2))(folder)


def with_code(folder: Path) -> Path:
    torch.save({"a": Call(os.mkdir, str(folder / "harm"))}, folder / "s.pth")
    return folder / "s.pth"


def saved(value: Any, zipped: bool = True) -> Make:
    def make(folder: Path) -> Path:
        torch.save(value(), folder / "s.pth", _use_new_zipfile_serialization=zipped)
        return folder / "s.pth"

    return make


def deflated(folder: Path) -> Path:
    """An archive whose entries are compressed, one of them a hundred million zeros."""
    source = stage()(folder)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(folder / "d.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("archive/data/99", b"\0" * 10**8)
    return folder / "d.pth"


def long_entries(folder: Path) -> Path:
    """The table of contents says that every entry has 2 GB."""
    path = stage()(folder)
    raw = bytearray(path.read_bytes())
    place = raw.find(b"PK\x01\x02")
    while place >= 0:
        raw[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
        place = raw.find(b"PK\x01\x02", place + 4)
    path.write_bytes(bytes(raw))
    return path


def long_storage(folder: Path) -> Path:
    """The older layout, with a storage of ten million million values."""
    path = saved(lambda: {"a": torch.ones(3)}, zipped=False)(folder)
    raw = path.read_bytes()
    assert b"K\x03Nt" in raw
    path.write_bytes(raw.replace(b"K\x03Nt", b"\x8a\x06" + (10**13).to_bytes(6, "little") + b"Nt"))
    return path


def lists(depth: int = 40) -> Any:
    """Lists in lists: a walk that visits each as often as it is named never ends."""
    nested: Any = ["x"] * 10
    for _ in range(depth):
        nested = [nested] * 10
    return nested


def deep_lists(depth: int) -> Any:
    nested: Any = []
    for _ in range(depth):
        nested = [nested]
    return nested


def own_list() -> Any:
    found: list[Any] = []
    found.append(found)
    return found


def sessions(count: int) -> Change:
    """As many sessions, each of one class."""
    return lambda made: made.update(classes=[str(k) for k in range(count)], classes_per_session=[1] * count)


# -- images -----------------------------------------------------------------------------------------------


def image(name: str, mode: str = "RGB", size: tuple[int, int] = (32, 24), **options: Any) -> Make:
    def make(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name, **options)
        return folder / name

    return make


def cut_image(name: str, share: float) -> Make:
    return lambda folder: tiny.truncate(image(name)(folder), share)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + body + chunk(b"IEND", b"")


def long_text() -> bytes:
    """A text chunk that unpacks to a hundred million bytes."""
    return chunk(b"zTXt", b"note\0\0" + zlib.compress(b"\0" * 10**8, 9))


# -- annotations ------------------------------------------------------------------------------------------


def coco(change: Change | None = None, raw: Callable[[str], str | bytes] | None = None) -> Make:
    """COCO's folders after a change of the training file, as an object or as text; returns the file."""

    def make(folder: Path) -> Path:
        path = tiny.coco_folder(folder / "data") / "annotations" / "instances_train2014.json"
        made = tiny.coco_instances(8)
        if change is not None:
            change(made)
        text = json.dumps(made)
        found = text if raw is None else raw(text)
        path.write_bytes(found if isinstance(found, bytes) else found.encode())
        return path

    return make


def named(file_name: Any) -> Make:
    return coco(lambda made: made["images"][2].update(file_name=file_name))


def entry(key: str, **values: Any) -> Make:
    return coco(lambda made: made[key][3].update(values))


def voc_xml(text: str) -> Make:
    """VOC's folders with one annotation replaced; returns it."""

    def make(folder: Path) -> Path:
        path = tiny.voc_folder(folder / "data") / "Annotations" / "trainval_1.xml"
        path.write_text(text)
        return path

    return make


def voc_list(*lines: str) -> Make:
    def make(folder: Path) -> Path:
        path = tiny.voc_folder(folder / "data") / "ImageSets" / "Main" / "trainval.txt"
        path.write_text("\n".join([*(f"trainval_{k}" for k in range(8)), *lines]) + "\n")
        return path

    return make


def many_entities() -> str:
    lines = ['<!ENTITY a "aaaaaaaaaa">']
    for old, new in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f'<!ENTITY {new} "{f"&{old};" * 10}">')
    return f"<!DOCTYPE x [{''.join(lines)}]><annotation><object><name>&j;</name></object></annotation>"


def animation(folder: Path) -> Path:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    first.save(folder / "a.gif", save_all=True, append_images=[second])
    return folder / "a.gif"


def turned(folder: Path) -> Path:
    """A photo whose upper half is white once it is turned as its EXIF entry says."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # orientation 6: the stored left is the upper side
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(folder / "t.jpg", exif=exif, quality=95)
    return folder / "t.jpg"


def sixteen_bits(folder: Path) -> Path:
    Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)).save(folder / "s.png")
    return folder / "s.png"


def as_bytes(made: dict[str, Any]) -> bytes:
    """A checkpoint as the bytes of its file."""
    out = io.BytesIO()
    torch.save(made, out)
    return out.getvalue()


# -- configs ----------------------------------------------------------------------------------------------


def yaml_base(folder: Path) -> Path:
    """A python config on top of a YAML file that calls a function."""
    content("base.yaml", "x: !!python/object/apply:os.mkdir [harm]")(folder)
    return content("c.py", '_base_ = ["base.yaml"]')(folder)
