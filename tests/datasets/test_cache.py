"""The image cache gives what decoding gives, and never anything else."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from mlcil.datasets import cache as C
from mlcil.datasets.loading import ImageSource, Loader, SessionSampler, SessionView
from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.datasets.transforms import TrainTransform
from mlcil.errors import UserError
from mlcil.images import SQUARE, Fit, decode

SIZE = 40
ROWS = 70  # more than two batches of the build


def photos(folder: Path, count: int = ROWS) -> list[Path]:
    """Files of all kinds that are met: JPEG, PNG, grey, CMYK, palette, 16 bits."""
    files = []
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (20 + k, 90 - k, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        kind = k % 6
        path = folder / f"{k}.{'png' if kind in (1, 4, 5) else 'jpg'}"
        if kind == 5:
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 256)
        elif kind:
            image = image.convert(("RGB", "RGB", "L", "CMYK", "P")[kind])
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        files.append(path)
    return files


def table_of(files, fit=SQUARE, name="train"):
    labels = np.zeros((len(files), 2), np.int8)
    labels[:, 0] = 1
    return ImageTable(name, ("a", "b"), tuple(range(len(files))), tuple(files), labels, labels == 1, fit=fit)


@pytest.fixture
def world(tmp_path):
    class World:
        files = photos(tmp_path / "photos")
        folder = tmp_path / "kept"

        def __init__(self):
            self.told = []

        def cached(self, table=None, workers=0, size=SIZE, **options):
            self.told = []
            chosen = C.CacheOptions(**{"folder": str(self.folder), **options})
            return C.with_cache(table or table_of(self.files), size, chosen, self.told.append, workers)

        def entries(self):
            return sorted(p for p in self.folder.iterdir() if not p.name.startswith("."))

        def leftovers(self):
            return [p for p in self.folder.iterdir() if p.name.startswith(C.BUILDING)]

    return World()


def forbid_decoding(monkeypatch):
    def refuse(self, row):
        raise AssertionError(f"row {row} was decoded")

    monkeypatch.setattr(ImageTable, "image", refuse)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fit", [Fit(), Fit("centre", interpolation="bicubic")])
def test_pixels_are_those_of_decoding(world, fit, workers, monkeypatch):
    table = table_of(world.files, fit)
    expected = [decode(file, SIZE, fit) for file in world.files]
    made = world.cached(table, workers)
    assert made.cache.kept_N.all()
    again = world.cached(table)
    assert world.told == []  # nothing is built a second time
    assert len(world.entries()) == 1
    assert world.leftovers() == []
    forbid_decoding(monkeypatch)
    for found in (made, again):
        for row, pixels in enumerate(expected):
            image = found.fitted(row, SIZE)
            np.testing.assert_array_equal(image, pixels)
            assert image.dtype == np.uint8


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_batches_are_the_same(world, workers):
    table = table_of(world.files)

    def batches(source):
        view = SessionView(source, np.arange(ROWS), table.labels_NC, SIZE, TrainTransform(SIZE))
        sampler = SessionSampler(ROWS, 3, 0, shuffle=True)
        loader = Loader(view, sampler, 16, workers)
        found = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            found += [batch["inputs"].clone() for batch in loader]
        return found

    for plain, kept in zip(batches(table), batches(world.cached()), strict=True):
        assert plain.equal(kept)


def test_a_copy_is_handed_out(world):
    table = world.cached()
    table.fitted(0, SIZE)[:] = 7
    np.testing.assert_array_equal(table.fitted(0, SIZE), decode(world.files[0], SIZE))


def test_other_sizes_and_crops_of_the_whole_image_are_decoded(world):
    table = world.cached()
    np.testing.assert_array_equal(table.fitted(3, 24), decode(world.files[3], 24))
    seen = []

    class Whole:
        whole = True

        def __call__(self, image, rng):
            seen.append(image.shape)
            return image

    ImageSource(table, SIZE, Whole()).read(3, (1, 2))
    assert seen == [(23, 87, 3)]


def test_reordering_keeps_the_cache(world, monkeypatch):
    expected = decode(world.files[2], SIZE)
    multi = world.cached().reorder(["b", "a"])
    files = tuple(world.files)
    single = world.cached(SingleLabelTable("train", ("a", "b"), np.arange(ROWS) % 2, files=files)).reorder(["b", "a"])
    forbid_decoding(monkeypatch)
    for table in (multi, single):
        np.testing.assert_array_equal(table.fitted(2, SIZE), expected)


def test_a_table_in_memory_and_a_cache_that_is_off_are_left_alone(world):
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    memory = SingleLabelTable("train", ("a", "b"), np.arange(2), pixels=pixels)
    assert world.cached(memory) is memory
    table = table_of(world.files)
    assert world.cached(table, enabled=False) is table
    assert not world.folder.exists()


# -- changes ---------------------------------------------------------------------------------------------------


def test_a_changed_file_is_decoded_at_once_and_kept_anew(world):
    before = world.cached()
    tiny.write_image(world.files[4], seed=99)
    changed = decode(world.files[4], SIZE)
    np.testing.assert_array_equal(before.fitted(4, SIZE), changed)  # in the run that has it open
    after = world.cached()
    assert after.cache.folder != before.cache.folder
    assert after.cache.kept_N.all()
    np.testing.assert_array_equal(after.fitted(4, SIZE), changed)


def test_same_size_and_time_are_no_disguise(world):
    path = world.files[1]  # a PNG
    before = world.cached()
    found = os.stat(path)
    content = bytearray(path.read_bytes())
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0")[: max(len(content), path.stat().st_size)])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    np.testing.assert_array_equal(before.fitted(1, SIZE), decode(path, SIZE))
    np.testing.assert_array_equal(world.cached().fitted(1, SIZE), decode(path, SIZE))


def test_other_decoders_other_folders(world, monkeypatch):
    table = table_of(world.files)
    stamps = np.array([C.stamp(file) for file in world.files])
    names = {C.digest(table, SIZE, stamps), C.digest(table, SIZE + 1, stamps)}
    names.add(C.digest(table_of(world.files, Fit("centre")), SIZE, stamps))
    names.add(C.digest(table_of(world.files[::-1]), SIZE, stamps[::-1]))
    monkeypatch.setattr(C.PIL, "__version__", "0.0")
    names.add(C.digest(table, SIZE, stamps))
    assert len(names) == 5


def test_an_image_that_cannot_be_read_keeps_its_error(world):
    tiny.truncate(world.files[0])
    world.files[6].unlink()
    table = world.cached()
    assert "2 image(s)" in world.told[-1]
    for row in (0, 6):
        with pytest.raises(UserError) as plain:
            decode(world.files[row], SIZE)
        with pytest.raises(UserError) as kept:
            table.fitted(row, SIZE)
        assert str(kept.value) == str(plain.value)
    np.testing.assert_array_equal(table.fitted(7, SIZE), decode(world.files[7], SIZE))


# -- damage ----------------------------------------------------------------------------------------------------


def test_damaged_pixels_are_noticed(world):
    folder = world.cached().cache.folder
    with open(folder / C.PIXELS, "rb+") as file:
        file.seek(5 * SIZE * SIZE * 3 + 11)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    np.testing.assert_array_equal(world.cached().fitted(5, SIZE), decode(world.files[5], SIZE))


@pytest.mark.parametrize("name", [C.PIXELS, C.INDEX, C.ABOUT])
@pytest.mark.parametrize("damage", ["cut", "removed", "empty"])
def test_a_damaged_entry_is_made_anew(world, name, damage):
    path = world.cached().cache.folder / name
    if damage == "removed":
        path.unlink()
    else:
        tiny.truncate(path, 0.5 if damage == "cut" else 0.0)
    table = world.cached()
    assert len(world.told) == 2  # decoding, built
    for row in (0, ROWS - 1):
        np.testing.assert_array_equal(table.fitted(row, SIZE), decode(world.files[row], SIZE))


def test_pixels_that_are_cut_off_in_a_run_are_decoded(world):
    table = world.cached()
    path = table.cache.folder / C.PIXELS
    for keep in (0.5, 0.0):
        tiny.truncate(path, keep)
        for row in (0, ROWS // 2, ROWS - 1):
            np.testing.assert_array_equal(table.fitted(row, SIZE), decode(world.files[row], SIZE))
    table.fitted(0, SIZE)
    tiny.truncate(path, 0.0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:  # as a worker that has it open already
        image = pool.submit(table.fitted, ROWS - 1, SIZE).result()
    np.testing.assert_array_equal(image, decode(world.files[-1], SIZE))


def test_a_folder_that_vanishes_in_a_run_does_no_harm(world):
    table = world.cached()
    shutil.rmtree(world.folder)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        image = pool.submit(table.fitted, 3, SIZE).result()
    np.testing.assert_array_equal(image, decode(world.files[3], SIZE))


# -- several processes -----------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_cache as T
from mlcil.datasets import cache as C
folder, files = sys.argv[1], [Path(f) for f in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
table = C.with_cache(T.table_of(files), T.SIZE, C.CacheOptions(folder=folder), lambda line: print(line, flush=True))
print(T.zlib_of(table), flush=True)
"""


def zlib_of(table):
    """One number for all images."""
    return C.zlib.crc32(b"".join(table.cache.read(row, table.files[row]).tobytes() for row in range(len(table))))


def start_child(world):
    tests = str(Path(__file__).parent)
    code = CHILD.format(path=[tests, str(Path(tests).parent), str(tiny.SOURCES)])
    words = [sys.executable, "-c", code, str(world.folder), *map(str, world.files)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


def test_two_processes_at_once_build_one(world):
    children = [start_child(world) for _ in range(2)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=120)[0].splitlines() for child in children]
    assert sum("built in" in line for lines in outputs for line in lines) == 1
    expected = zlib_of(world.cached())
    assert [lines[-1] for lines in outputs] == [str(expected)] * 2
    assert len(world.entries()) == 1


def test_a_builder_that_is_killed_leaves_nothing_that_is_taken(world, monkeypatch):
    key_folder = world.cached().cache.folder  # what a complete one looks like
    complete = key_folder / C.PIXELS
    shutil.copytree(key_folder, world.folder / (C.BUILDING + key_folder.name))
    shutil.rmtree(key_folder)
    assert world.entries() == []
    table = world.cached()
    assert "built in" in world.told[-1]
    assert complete.is_file()
    assert world.leftovers() == []
    np.testing.assert_array_equal(table.fitted(2, SIZE), decode(world.files[2], SIZE))


def test_an_interrupted_build_leaves_no_half(world, monkeypatch):
    whole = C._Decoding.__getitem__

    def interrupted(self, row):
        if row == 50:
            raise KeyboardInterrupt
        return whole(self, row)

    monkeypatch.setattr(C._Decoding, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.cached()
    assert world.entries() == world.leftovers() == []


def test_a_file_that_changes_while_it_is_decoded_is_not_kept(world, monkeypatch):
    whole = ImageTable.image

    def changing(self, row):
        image = whole(self, row)
        if row == 8:
            os.utime(self.files[row])
        return image

    with monkeypatch.context() as patch:
        patch.setattr(ImageTable, "image", changing)
        table = world.cached()
    assert not table.cache.kept_N[8]
    assert table.cache.kept_N.sum() == ROWS - 1


# -- bounds ----------------------------------------------------------------------------------------------------


def test_too_little_room_is_said_and_images_are_decoded(world):
    bytes_needed = ROWS * SIZE * SIZE * 3
    table = world.cached(limit_gb=bytes_needed / 2e9)
    assert table.cache is None
    assert "image_cache.limit_gb" in world.told[-1]
    assert world.entries() == world.leftovers() == []


def test_a_disk_without_room_is_said(world, monkeypatch):
    monkeypatch.setattr(C.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, C.RESERVE))
    assert world.cached().cache is None
    assert "make room" in world.told[-1]
    assert world.entries() == world.leftovers() == []


def test_what_was_used_longest_ago_makes_room_unless_it_is_open(world):
    limit = 2.5 * ROWS * SIZE * SIZE * 3 / 1e9
    for seconds, size in ((100, SIZE), (200, SIZE - 1)):
        folder = world.cached(size=size).cache.folder
        os.utime(folder / C.ABOUT, (seconds, seconds))
        if size == SIZE:
            oldest = folder
    world.cached(size=SIZE + 1, limit_gb=limit)
    assert "made room" in world.told[0]
    assert not oldest.exists()
    assert len(world.entries()) == 2
    in_use = [world.cached(size=size, limit_gb=limit) for size in (SIZE - 1, SIZE + 1)]
    assert all(table.cache for table in in_use)
    refused = world.cached(limit_gb=limit)
    assert refused.cache is None
    assert "in use" in world.told[-1]
    assert all(table.cache.folder.exists() for table in in_use)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_ends_the_build_and_not_the_run(world, monkeypatch, workers):
    class Full:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def seek(self, place):
            raise OSError(C.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(C, "open", lambda path, mode, **words: (Full if words else open)(path, mode), raising=False)
    assert world.cached(workers=workers).cache is None
    assert "full" in world.told[-1]
    assert world.entries() == world.leftovers() == []


def test_a_cache_of_somebody_else_is_used(world, monkeypatch):
    world.cached()

    def refuse(path):
        raise PermissionError(C.errno.EPERM, "Operation not permitted", path)

    monkeypatch.setattr(C.os, "utime", refuse)
    assert world.cached().cache is not None
    assert world.told == []


def test_a_folder_that_cannot_be_made_is_said(world):
    world.folder.write_text("a file")
    assert world.cached().cache is None
    assert "not used" in world.told[-1]


@pytest.mark.parametrize("wrong", [{"enabled": 1}, {"folder": 3}, {"limit_gb": 0}, {"limit_gb": "big"}])
def test_options_of_another_kind(wrong):
    with pytest.raises(UserError, match=f"image_cache.{next(iter(wrong))}"):
        C.CacheOptions(**wrong)


# -- runs ------------------------------------------------------------------------------------------------------


def test_a_run_gives_the_same_with_and_without(tmp_path, capsys):
    data = tiny.coco_folder(tmp_path / "data")
    results = {}
    for name, words in (("with", ()), ("without", ("image_cache.enabled=False",)), ("again", ())):
        config = tiny.write_config(tmp_path, data)
        code, _, error = tiny.call(capsys, "train", config, "--name", name, "train_cfg.max_epochs=2", *words)
        assert code == 0, error
        content = json.loads((tmp_path / "logs" / name / "results.json").read_text())
        results[name] = [(s["mAP"], s["fixed_AP"], s["AP"]) for s in content["sessions"]]
        log = (tmp_path / "logs" / name / "log" / "log.txt").read_text()
        assert ("image cache: built" in log) == (name == "with")
    assert results["with"] == results["without"] == results["again"]
    entries = [p for p in (tmp_path / "logs_images").iterdir() if not p.name.startswith(".")]
    assert len(entries) == 2  # training and test images
