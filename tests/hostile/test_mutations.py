"""Valid files with one thing changed: reading them succeeds or ends in our own error, never in another."""

from __future__ import annotations

import copy
import json
import os
import tempfile
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
from report_files import make_run

from mlcil.commands.compare import compare_runs
from mlcil.datasets.cache import ABOUT, INDEX, PIXELS, CacheOptions, with_cache
from mlcil.datasets.coco import load_coco_split
from mlcil.datasets.table import ImageTable
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import decode
from mlcil.reporting import long_table
from mlcil.reporting.comparison import read_results
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


def test_the_unchanged_results_are_taken(run: Path) -> None:
    assert judge_results(run, (run / "results.json").read_bytes(), report=True)
