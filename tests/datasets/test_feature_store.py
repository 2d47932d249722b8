"""Features from the store against features that are computed, and what can happen to the store's files."""

import errno
import multiprocessing
import os
import shutil

import numpy as np
import pytest
import torch
from tiny import BACKBONE, SIZE, write_image

from mlcil.datasets import feature_store
from mlcil.datasets.feature_store import BATCH, FeatureStore, TorchEngine, features_of, pooled, table_of, weights_digest
from mlcil.datasets.table import SingleLabelTable
from mlcil.errors import UserError
from mlcil.models.network import IncrementalNetwork

PHOTOS = 21  # a whole batch and a part of one


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return IncrementalNetwork(BACKBONE, {"type": "linear"}, SIZE, frozen_backbone=True)


@pytest.fixture
def engine(network):
    made = TorchEngine(network)
    made.seen = 0
    forward = made._backbone.forward

    def counted(images):
        made.seen += len(images)
        return forward(images)

    made._backbone.forward = counted
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [write_image(folder / f"{k}.png", k) for k in range(PHOTOS)]


def everything(features):
    return features[np.arange(len(features))]


@pytest.mark.parametrize("kind", ["maps", "pooled"])
def test_the_store_gives_the_bits_of_computing(engine, files, tmp_path, kind):
    """Whatever else is computed beside an image, and under whatever path it lies."""
    store = FeatureStore(tmp_path / "store")
    computed = everything(features_of(engine, table_of(files), None, kind))
    part = features_of(engine, table_of(files), store, kind, rows=np.array([18, 3, 7]))
    np.testing.assert_array_equal(part[np.array([18, 3, 7])], computed[[18, 3, 7]])
    assert engine.seen == 3 * BATCH
    whole = features_of(engine, table_of(files), store, kind)
    assert whole.computed == PHOTOS - 3
    np.testing.assert_array_equal(everything(whole), computed)
    engine.seen = 0
    elsewhere = [shutil.copy(file, tmp_path / f"copy_{file.name}") for file in reversed(files)]
    again = features_of(engine, table_of(elsewhere), FeatureStore(tmp_path / "store"), kind)
    np.testing.assert_array_equal(everything(again)[::-1], computed)
    np.testing.assert_array_equal(again[2], computed[-3])
    assert engine.seen == again.computed == 0


def test_maps_are_the_backbones_and_pooled_ones_their_means(network, engine, files, tmp_path):
    table = table_of(files)
    maps = features_of(engine, table, FeatureStore(tmp_path), "maps")
    images = np.stack([table.fitted(row, SIZE) for row in range(PHOTOS)]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.eval().backbone(torch.from_numpy(images).float() / 255)[-1].numpy()
    np.testing.assert_allclose(everything(maps), expected, rtol=1e-4, atol=1e-5)
    means = features_of(engine, table, FeatureStore(tmp_path))
    np.testing.assert_array_equal(everything(means), pooled(everything(maps)))
    assert means.as_maps()[np.array([4])].shape == (1, means.shape[1], 1, 1)
    assert means.as_maps().shape == (PHOTOS, means.shape[1], 1, 1)


def test_pixels_in_memory_and_images_that_are_there_twice(engine, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    table = SingleLabelTable("train", ("a",), np.zeros(6, int), pixels=pixels[[0, 1, 2, 3, 4, 1]])
    found = features_of(engine, table, FeatureStore(tmp_path))
    assert found.computed == 5
    np.testing.assert_array_equal(found[1], found[5])


def test_half_precision_rounds(engine, files, tmp_path):
    exact = everything(features_of(engine, table_of(files), FeatureStore(tmp_path)))
    half = everything(features_of(engine, table_of(files), FeatureStore(tmp_path, dtype="float16")))
    np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))


def test_other_weights_other_features(network, files, tmp_path):
    torch.manual_seed(1)
    other = IncrementalNetwork(BACKBONE, {"type": "linear"}, SIZE, frozen_backbone=True)
    digest = weights_digest(network)
    assert digest != weights_digest(other)
    network.to(memory_format=torch.channels_last)
    assert digest == weights_digest(network)
    store = FeatureStore(tmp_path)
    first, second = (features_of(TorchEngine(net), table_of(files), store) for net in (network, other))
    assert second.computed == PHOTOS
    assert not np.array_equal(first[0], second[0])


def shards(store):
    return sorted(store.folder.glob("*/*.bin"))


@pytest.mark.parametrize("damage", ["number", "digest", "cut", "empty", "text"])
def test_a_damaged_file_is_noticed(engine, files, tmp_path, damage):
    store = FeatureStore(tmp_path)
    expected = everything(features_of(engine, table_of(files), store))
    (path,) = shards(store)
    content = bytearray(path.read_bytes())
    if damage == "number":
        content[-100] ^= 4
    elif damage == "digest":
        place = content.index(b'"digests": ["') + 13
        content[place : place + 4] = b"0123" if content[place : place + 4] != b"0123" else b"4567"
    elif damage == "text":
        content[:20] = b"x" * 20
    path.write_bytes({"cut": content[:-8], "empty": b""}.get(damage, content))
    said = []
    again = features_of(engine, table_of(files), FeatureStore(tmp_path), tell=said.append)
    assert again.computed == PHOTOS
    assert "is damaged" in said[0]
    assert str(path) in said[0]
    np.testing.assert_array_equal(everything(again), expected)
    assert features_of(engine, table_of(files), FeatureStore(tmp_path)).computed == 0


def test_a_file_that_cannot_be_read_stays(engine, files, tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    features_of(engine, table_of(files), store)
    (path,) = shards(store)

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    said = []
    monkeypatch.setattr(feature_store, "_open_shard", refuse)
    assert store.find(path.parent.name, {b"some"}, engine.shape, said.append) == {}
    assert f"{path} cannot be read (Input/output error)" in said[0]
    assert path.exists()


def test_damaged_digests_are_made_again_and_changed_files_are_noticed(engine, files, tmp_path):
    mine = [shutil.copy(file, tmp_path / file.name) for file in files]
    store = FeatureStore(tmp_path / "store")
    features_of(engine, table_of(mine), store)
    (known,) = (tmp_path / "store" / "digests").iterdir()
    known.write_bytes(known.read_bytes()[:-30])
    assert features_of(engine, table_of(mine), store).computed == 0
    write_image(tmp_path / "0.png", 99)
    assert features_of(engine, table_of(mine), store).computed == 1


def test_the_limit_takes_what_was_used_longest_ago(engine, files, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "SHARD", 7)
    features_of(engine, table_of(files[:14]), FeatureStore(tmp_path))
    first, second = shards(FeatureStore(tmp_path))
    os.utime(first, (1, 1))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    limit = (size + 1500) / 1e9
    said = []
    features_of(engine, table_of(files[14:]), FeatureStore(tmp_path, limit), tell=said.append)
    assert not first.exists()
    assert second.exists()
    assert len(shards(FeatureStore(tmp_path))) == 2
    everything_too_big = features_of(engine, table_of(files), FeatureStore(tmp_path, 1e-6), tell=said.append)
    assert len(said) == 1
    assert "features stay in memory" in said[0]
    assert everything(everything_too_big).shape[0] == PHOTOS


def test_remains_of_the_dead_go(engine, files, tmp_path):
    dead, alive = tmp_path / "k" / ".a.1.tmp", tmp_path / "k" / ".b.1.tmp"
    dead.parent.mkdir()
    for path in (dead, alive):
        path.write_bytes(b"1")
    os.utime(dead, (1, 1))
    features_of(engine, table_of(files), FeatureStore(tmp_path))
    assert not dead.exists()
    assert alive.exists()


def test_a_folder_that_cannot_be_written_and_an_image_that_cannot_be_read(engine, files, tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    found = features_of(engine, table_of(files), FeatureStore(tmp_path / "file" / "store"), tell=said.append)
    assert found.computed == PHOTOS
    assert len(said) == 1
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for path in (tmp_path / "broken.jpg", tmp_path / "none.jpg"):
        with pytest.raises(UserError, match=path.name):
            features_of(engine, table_of([path]), FeatureStore(tmp_path / "store"))


def _fill(network, files, folder, answers):
    torch.set_num_threads(1)
    found = features_of(TorchEngine(network), table_of(files), FeatureStore(folder))
    answers.put(everything(found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")
def test_several_processes_at_once(network, engine, files, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, "SHARD", 4)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_fill, args=(network, files, tmp_path, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    expected = everything(features_of(engine, table_of(files), None))
    for values in found:
        np.testing.assert_array_equal(values, expected)
    assert features_of(engine, table_of(files), FeatureStore(tmp_path)).computed == 0
    assert not list(tmp_path.rglob("*.tmp"))
