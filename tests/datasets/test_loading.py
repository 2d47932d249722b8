"""One way from a row to a batch, in this process and in others."""

import contextlib
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import ImageSource, Loader, Readers, SessionSampler, SessionView, find_unreadable
from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.datasets.transforms import TrainTransform
from mlcil.errors import UserError

ROWS, SIZE = 24, 16
LABELS = (np.arange(ROWS)[:, None] % 3 == np.arange(3)).astype(np.int8)


@pytest.fixture
def files(tmp_path):
    found = tuple(tmp_path / f"{row}.png" for row in range(ROWS))
    for row, file in enumerate(found):
        pixels = np.random.default_rng(row).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    return found


def table_of(files):
    return ImageTable("train", ("a", "b", "c"), tuple(range(ROWS)), files, LABELS, LABELS == 1)


@pytest.fixture
def readers():
    made = []

    def make(*sources, workers=2):
        made.append(Readers(workers, sources))
        return made[-1]

    yield make
    for each in made:
        each.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def two_sessions(table, transform, options):
    """All batches of two sessions with other rows and targets: two epochs, one from its middle, and a plain pass."""
    found, pids = [], []
    for session in range(2):
        rows = np.arange(ROWS)[session::2]
        targets = LABELS[rows] * (1 - 2 * session)
        origins = rows % (session + 1)
        view = SessionView(table, rows, targets, SIZE, transform, origins)
        sampler = SessionSampler(len(view), 5, session, shuffle=True)
        loader = Loader(view, sampler, 5, **options)
        for epoch in range(2):
            sampler.set_epoch(epoch, start=5 * epoch)
            found += list(loader)
        whole = SessionView(table, rows, targets[:, :0], SIZE)
        plain = Loader(whole, SessionSampler(len(whole), 0, 0, shuffle=False), 7, **options)
        found += list(plain)
        pids.append(options["readers"].pids if "readers" in options else [])
    return found, pids


def assert_same_batches(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert torch.equal(a[name], b[name]), name


def test_one_set_of_processes_gives_the_batches_of_this_process(files, readers):
    table, transform = table_of(files), TrainTransform(SIZE)
    pool = readers(ImageSource(table, SIZE, transform), ImageSource(table, SIZE, None))
    here, _ = two_sessions(table, transform, {})
    there, pids = two_sessions(table, transform, {"num_workers": 2, "readers": pool})
    assert_same_batches(here, there)
    assert pids[0] == pids[1]
    assert len(set(pids[0])) == 2
    pool.close()
    assert not any(alive(pid) for pid in pids[0])
    assert pool.pids == []


def global_states():
    _, keys, place, *_ = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), place, random.getstate()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_leaves_the_global_generators_alone(files, workers, tmp_path):
    """Whatever reads images: training and plain passes, the search for unreadable files, the build of a cache."""
    table, transform = table_of(files), TrainTransform(SIZE, flip=True)
    before = global_states()
    two_sessions(table, transform, {"num_workers": workers})
    find_unreadable(table, workers)
    with_cache(table, SIZE, CacheOptions(folder=str(tmp_path / "kept")), lambda _: None, workers)
    assert global_states() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_found_once_and_then_raise(files, workers, tmp_path):
    for row in (3, 5, 23):  # two behind one another in a session, one at its end
        files[row].write_bytes(b"")
    table, told = table_of(files), []
    found = find_unreadable(table, workers, lambda done, total: told.append((done, total)))
    assert list(found) == [3, 5, 23]
    assert found[5].startswith(f"{files[5]} is no image that can be read")
    assert told == [(ROWS, ROWS)]
    view = SessionView(table, np.arange(ROWS), LABELS, SIZE)
    with pytest.raises(UserError, match=r"^\S*3\.png is no image that can be read"):
        list(Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 4, workers))
    kept = with_cache(table, SIZE, CacheOptions(folder=str(tmp_path / "kept")), lambda _: None, workers)
    assert find_unreadable(kept, workers, lambda done, total: told.append((done, total))) == found
    assert told[-1] == (3, 3)  # the others were decoded for the cache


def test_a_table_without_some_rows(files):
    several = table_of(files)
    single = SingleLabelTable("train", ("a", "b", "c"), np.arange(ROWS) % 3, files=files)
    for table in (several, single):
        left = table.without([4, 5]).without([0]).reorder(("c", "b", "a"))
        assert left.readable_rows().tolist() == [1, 2, 3, *range(6, ROWS)]
        assert table.readable_rows().tolist() == list(range(ROWS))
        assert left.rows_of(0, 3).tolist() == left.readable_rows().tolist()
        assert left.positives().tolist() == [7, 7, 7]
        assert not (left.labels_of(np.array([0, 4, 5]), 3) == 1).any()
        assert left.part(np.array([5, 6]), "part").readable_rows().tolist() == [1]
        assert len(left) == ROWS


def test_the_processes_go_on_behind_an_error_and_an_unfinished_pass(files, readers):
    table = table_of(files)
    files[9].write_bytes(b"")
    pool = readers()

    def loader(rows):
        view = SessionView(table, rows, LABELS[rows], SIZE)
        sampler = SessionSampler(len(view), 0, 0, shuffle=False)
        return Loader(view, sampler, 4, 2, readers=pool)

    with pytest.raises(UserError, match=r"^\S*9\.png is no image that can be read"):
        list(loader(np.arange(ROWS)))
    before = pool.pids
    next(iter(loader(np.arange(9))))
    rows = [row for batch in loader(np.arange(10, ROWS)) for row in batch["rows"].tolist()]
    assert rows == list(range(10, ROWS))
    assert pool.pids == before == [pid for pid in before if alive(pid)]


def test_a_pass_inside_another_one(files, readers):
    view = SessionView(table_of(files), np.arange(ROWS), LABELS, SIZE)
    pool = readers(view.source)
    loader = Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 6, 2, readers=pool)
    outer = []
    for batch in loader:
        outer += batch["rows"].tolist()
        assert [row for inner in loader for row in inner["rows"].tolist()] == list(range(ROWS))
    assert outer == list(range(ROWS))


def test_a_source_that_was_not_named_is_added(files, readers):
    table = table_of(files)
    views = [SessionView(table, np.arange(4), LABELS[:4], size) for size in (SIZE, 8)]
    pool = readers(views[0].source)
    for view in (*views, views[0]):
        loader = Loader(view, SessionSampler(4, 0, 0, shuffle=False), 4, 2, readers=pool)
        side = view.source.image_size
        assert next(iter(loader))["inputs"].shape == (4, side, side, 3)
    assert len(pool.sources) == 2


def test_a_killed_process_is_an_error_of_the_pass(files, readers):
    view = SessionView(table_of(files), np.arange(ROWS), LABELS, SIZE)
    pool = readers(view.source, workers=1)
    batches = iter(Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 2, 1, readers=pool))
    next(batches)
    with pytest.raises(RuntimeError, match=r"^DataLoader worker"):  # noqa: PT012  (raised in whatever runs then)
        os.kill(pool.pids[0], signal.SIGKILL)
        list(batches)
    del batches
    pool.close()
    loader = Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 2, 1, readers=pool)
    assert len(list(loader)) == ROWS // 2


def test_a_process_that_dies_while_it_hands_over_a_batch(files, readers, monkeypatch):
    view = SessionView(table_of(files), np.arange(ROWS), LABELS, SIZE)
    pool = readers(view.source, workers=1)
    loader = Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 2, 1, readers=pool)
    next(iter(loader))
    (worker,) = pool._loader._iterator._workers

    def die(self):
        with contextlib.suppress(RuntimeError):
            worker.kill()
            worker.join()
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(type(pool._loader._iterator), "_get_data", die)
    with pytest.raises(RuntimeError, match=r"^DataLoader worker \(pid \d+\)"):
        list(loader)


def test_a_loader_of_its_own_ends_its_processes(files):
    view = SessionView(table_of(files), np.arange(ROWS), LABELS, SIZE)
    loader = Loader(view, SessionSampler(ROWS, 0, 0, shuffle=False), 6, 1)
    for _ in range(2):
        batches = iter(loader)
        next(batches)
        assert len(multiprocessing.active_children()) == 1
        assert len(list(batches)) == 3
        assert not multiprocessing.active_children()
