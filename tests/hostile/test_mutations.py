"""Valid files with one thing changed: reading them succeeds or ends in our own error, never in another."""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_files as f
import numpy as np
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from report_files import make_run

from mlcil.commands.compare import compare_runs
from mlcil.datasets.cache import ABOUT, INDEX, PIXELS, CacheOptions, with_cache
from mlcil.datasets.coco import load_coco_split
from mlcil.datasets.feature_store import BATCH, FeatureStore, features_of, table_of
from mlcil.datasets.table import ImageTable
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import decode
from mlcil.reporting import long_table
from mlcil.reporting.comparison import calibrated_f1, read_results
from mlcil.reporting.contact_sheet import keep_pictures, read_scores
from mlcil.reporting.html import page
from mlcil.reporting.report_runs import read_runs

#: more with MLCIL_EXAMPLES=2000
EXAMPLES = int(os.environ.get("MLCIL_EXAMPLES", "40"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="MLCIL_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["", "ant", "../x", "0.jpg", "\0", "\ud800", "id", "ü"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=5,
)
OTHER = VALUES.map(lambda value: ("replace", value))
CHANGES = OTHER | st.sampled_from([("remove", None), ("repeat", None)])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of nested dictionaries and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed(value: Any, where: int, change: tuple[str, Any]) -> Any:
    """A copy in which one entry is replaced, removed or there twice."""
    value = copy.deepcopy(value)
    ways = list(places(value))
    *parents, last = ways[where % len(ways)]
    node = value
    for key in parents:
        node = node[key]
    kind, new = change
    if kind == "replace":
        node[last] = new
    elif kind == "remove":
        del node[last]
    elif isinstance(node, list):
        node.append(copy.deepcopy(node[last]))
    else:
        node[f"{last} again"] = copy.deepcopy(node[last])
    return value


def flipped(data: bytes, where: int, bits: int, length: int) -> bytes:
    """One byte changed, and the end cut off when ``length`` says so."""
    made = bytearray(data)
    made[where % len(made)] ^= bits
    return bytes(made[: length % len(made)] if length % 3 == 0 else made)


def refused(path: Path, error: UserError) -> bool:
    """False, after a look at the sentence."""
    assert str(path) in str(error)
    assert "\n" not in str(error)
    return False


def read_annotations(data: bytes) -> bool:
    """Whether the file is taken; any error but ours fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(data)
        try:
            table = load_coco_split(path, Path(folder))
        except UserError as error:
            return refused(path, error)
        assert set(table.labels_NC.flatten().tolist()) <= {-1, 0, 1}
        assert all(file.resolve().is_relative_to(Path(folder).resolve()) for file in table.files)
        return True


def read_checkpoint(data: bytes) -> bool:
    """Whether the file gives a network; any error but ours fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.pth"
        path.write_bytes(data)
        try:
            network = StageCheckpoint.load(path).build(path)
        except UserError as error:
            return refused(path, error)
        assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
        return True


ANNOTATIONS = tiny.coco_instances(4)
STAGE = tiny.stage_content()
STAGE_BYTES = f.as_bytes(STAGE)


@SETTINGS
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_annotations_with_another_entry(where: int, change: tuple[str, Any]) -> None:
    read_annotations(json.dumps(changed(ANNOTATIONS, where, change)).encode())


@SETTINGS
@given(where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**6))
def test_annotations_with_another_byte(where: int, bits: int, length: int) -> None:
    read_annotations(flipped(json.dumps(ANNOTATIONS).encode(), where, bits, length))


@SETTINGS
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_checkpoints_with_another_entry(where: int, change: tuple[str, Any]) -> None:
    read_checkpoint(f.as_bytes(changed(STAGE, where, change)))


@SETTINGS
@given(where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**7))
def test_checkpoints_with_another_byte(where: int, bits: int, length: int) -> None:
    read_checkpoint(flipped(STAGE_BYTES, where, bits, length))


@SETTINGS
@given(value=VALUES, key=st.sampled_from(sorted(STAGE)))
def test_checkpoints_with_another_part(value: Any, key: str) -> None:
    read_checkpoint(f.as_bytes({**STAGE, key: value}))


def test_the_unchanged_files_are_taken() -> None:
    assert read_annotations(json.dumps(ANNOTATIONS).encode())
    assert read_checkpoint(STAGE_BYTES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs"), scores=False, sessions=2, classes=("ant", "bee"))


def judge_results(run: Path, data: bytes, report: bool = False) -> bool:
    """Whether the file stands in a table, and in a report when asked; any error but ours fails the test."""
    path, before = run / "results.json", (run / "results.json").read_bytes()
    path.write_bytes(data)
    try:
        if report:
            page(read_runs([run]))
        compare_runs([run])
        long_table.as_csv(list(long_table.rows_of(read_results(path))))
    except UserError as error:
        return refused(path, error)
    finally:
        path.write_bytes(before)
    return True


@SETTINGS
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_results_with_another_entry(run: Path, where: int, change: tuple[str, Any]) -> None:
    content = json.loads((run / "results.json").read_text())
    judge_results(run, json.dumps(changed(content, where, change)).encode())


@SETTINGS
@given(where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**6))
def test_results_with_another_byte(run: Path, where: int, bits: int, length: int) -> None:
    judge_results(run, flipped((run / "results.json").read_bytes(), where, bits, length))


@settings(SETTINGS, max_examples=max(EXAMPLES // 10, 4))
@given(where=st.integers(0, 10**6), change=CHANGES)
def test_reports_of_results_with_another_entry(run: Path, where: int, change: tuple[str, Any]) -> None:
    content = json.loads((run / "results.json").read_text())
    judge_results(run, json.dumps(changed(content, where, change)).encode(), report=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageTable, np.ndarray]:
    """A folder for the cache, a table of three photos and what they look like."""
    folder = tmp_path_factory.mktemp("photos")
    files = tuple(tiny.write_image(folder / f"{k}.png", seed=k) for k in range(3))
    labels = np.ones((3, 1), np.int8)
    table = ImageTable("train", ("ant",), (0, 1, 2), files, labels, labels == 1)
    return folder / "kept", table, np.stack([decode(path, 8) for path in files])


def read_cached(photos: tuple[Path, ImageTable, np.ndarray], name: str, data: Callable[[bytes], bytes]) -> None:
    """A cache of which one file was changed gives the photos all the same."""
    folder, table, pixels = photos
    for change in (data, lambda content: content):  # the second time with what the first has left there
        cached = with_cache(table, 8, CacheOptions(folder=str(folder)), lambda line: None)
        path = cached.cache.folder / name  # type: ignore[attr-defined]
        path.write_bytes(change(path.read_bytes()))
        again = with_cache(table, 8, CacheOptions(folder=str(folder)), lambda line: None)
        for look in (cached, again):
            np.testing.assert_array_equal(np.stack([look.fitted(row, 8) for row in range(3)]), pixels)


@settings(SETTINGS, max_examples=max(EXAMPLES // 2, 10))
@given(
    name=st.sampled_from([INDEX, ABOUT, PIXELS]), where=st.integers(0, 10**6), bits=st.integers(1, 255),
    length=st.integers(0, 10**6),
)  # fmt: skip
def test_caches_with_another_byte(
    photos: tuple[Path, ImageTable, np.ndarray], name: str, where: int, bits: int, length: int
) -> None:
    read_cached(photos, name, lambda content: flipped(content, where, bits, length))


class Means:
    """An engine that gives the mean colour, over a map of one position."""

    name, weights, image_size, shape = "means", "0", 8, (3, 1, 1)

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        assert len(images) == BATCH
        return images.float().mean((1, 2)).numpy()[:, :, None, None]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path], np.ndarray]:
    """A feature store, photos and their features."""
    folder = tmp_path_factory.mktemp("features")
    files = [tiny.write_image(folder / f"{k}.png", seed=k) for k in range(3)]
    return folder / "store", files, features_of(Means(), table_of(files), None)[np.arange(3)]


def read_store(
    features: tuple[Path, list[Path], np.ndarray], pattern: str, data: Callable[[bytes], bytes]
) -> tuple[int, list[str]]:
    """A store of which a file was changed gives the features all the same: how many were computed, and what it said."""
    folder, files, expected = features
    features_of(Means(), table_of(files), FeatureStore(folder))
    (path,) = folder.glob(pattern)
    path.write_bytes(data(path.read_bytes()))
    said: list[str] = []
    found = features_of(Means(), table_of(files), FeatureStore(folder), tell=said.append)
    np.testing.assert_array_equal(found[np.arange(3)], expected)
    for path in folder.rglob("*.*"):
        path.unlink()
    return found.computed, said


@settings(SETTINGS, max_examples=max(EXAMPLES // 2, 10))
@given(
    pattern=st.sampled_from(["*/*.bin", "digests/*.npz"]), where=st.integers(0, 10**6), bits=st.integers(1, 255),
    length=st.integers(0, 10**6),
)  # fmt: skip
def test_features_with_another_byte(
    features: tuple[Path, list[Path], np.ndarray], pattern: str, where: int, bits: int, length: int
) -> None:
    read_store(features, pattern, lambda content: flipped(content, where, bits, length))


@settings(SETTINGS, max_examples=max(EXAMPLES // 2, 10))
@given(second=st.booleans(), where=st.integers(0, 10**6), change=CHANGES)
def test_features_with_another_header(
    features: tuple[Path, list[Path], np.ndarray], second: bool, where: int, change: tuple[str, Any]
) -> None:
    """Also one whose checksum fits."""

    def data(content: bytes) -> bytes:
        first = json.loads(content[:128])
        text, numbers = content[128 : 128 + first["head"]], content[128 + first["head"] :]
        if second:
            text = json.dumps(changed(json.loads(text), where, change)).encode()
            first.update(head=len(text), crc=zlib.crc32(numbers, zlib.crc32(text)))
        else:
            first = changed(first, where, change)
        return json.dumps(first).encode().ljust(127) + b"\n" + text + numbers

    read_store(features, "*/*.bin", data)


def test_the_unchanged_features_are_taken(features: tuple[Path, list[Path], np.ndarray]) -> None:
    for pattern in ("*/*.bin", "digests/*.npz"):
        assert read_store(features, pattern, lambda content: content) == (0, [])


SAVED = ("scores/test.npz", "scores/session_1.npz", "scores/session_0.npz", "scores/pictures.npz", "made/session_1.npz")
ANY_ARRAY = arrays.arrays(
    st.sampled_from(["?", "i1", "i8", "u1", "f2", "f4", "f8", "c8", "U3", "S2", "M8[s]"]),
    arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=8),
)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with scores, with pictures of its test images and with made ones."""
    run = make_run(tmp_path_factory.mktemp("scored"), sessions=2, images=8, classes=("ant", "bee"))
    rng = np.random.default_rng(0)
    keep_pictures(read_runs([run])[0], rng.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8))
    (run / "made").mkdir()
    np.savez(run / "made" / "session_1.npz", images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array([0, 0]))
    return run


def judge_scores(run: Path, name: str, data: bytes, report: bool = False) -> bool:
    """Whether the file is taken where scores are read; a report, when asked for, is made in any case."""
    path, before = run / name, (run / name).read_bytes()
    path.write_bytes(data)
    try:
        if report:
            page(read_runs([run]))
        assert read_scores(run, 2, 2) is not None
        calibrated_f1(run, run)
    except UserError as error:
        return refused(Path(path.name), error)
    finally:
        path.write_bytes(before)
    return True


@SETTINGS
@given(name=st.sampled_from(SAVED), where=st.integers(0, 10**6), bits=st.integers(1, 255), length=st.integers(0, 10**6))
def test_scores_with_another_byte(scored: Path, name: str, where: int, bits: int, length: int) -> None:
    judge_scores(scored, name, flipped((scored / name).read_bytes(), where, bits, length))


def with_array(file: Path, which: int, other: np.ndarray) -> bytes:
    """The file with another array in the place of one of its own."""
    content = io.BytesIO()
    with np.load(file) as saved:
        np.savez(content, **{**saved, saved.files[which % len(saved.files)]: other})
    return content.getvalue()


@SETTINGS
@given(name=st.sampled_from(SAVED), which=st.integers(0, 3), other=ANY_ARRAY)
def test_scores_with_another_array(scored: Path, name: str, which: int, other: np.ndarray) -> None:
    judge_scores(scored, name, with_array(scored / name, which, other))


@settings(SETTINGS, max_examples=max(EXAMPLES // 10, 4))
@given(name=st.sampled_from(SAVED), which=st.integers(0, 3), other=ANY_ARRAY)
def test_reports_of_scores_with_another_array(scored: Path, name: str, which: int, other: np.ndarray) -> None:
    judge_scores(scored, name, with_array(scored / name, which, other), report=True)


def test_the_unchanged_scores_are_taken(scored: Path) -> None:
    for name in SAVED:
        assert judge_scores(scored, name, (scored / name).read_bytes(), report=name == SAVED[0])


def test_the_unchanged_results_are_taken(run: Path) -> None:
    assert judge_results(run, (run / "results.json").read_bytes(), report=True)
