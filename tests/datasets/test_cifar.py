import contextlib
import hashlib
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_single as tiny

from mlcil.datasets import cifar
from mlcil.datasets.cifar import CifarDataset, cifar10_dataset, cifar100_dataset, load_batch
from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.errors import UserError


class Harm:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", range(6))
def test_pixels_and_labels_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    dataset = cifar100_dataset(tiny.cifar_folder(tmp_path, protocol=protocol), verify=False)
    train, test = dataset.train(), dataset.test()
    assert (train.classes, train.ids, len(test)) == (tiny.CLASSES, tuple(range(8)), 4)
    expected = tiny.cifar_files("cifar100")["train"]["data"]
    assert train.pixels is not None
    np.testing.assert_array_equal(train.pixels[3].transpose(2, 0, 1).reshape(-1), expected[3])
    np.testing.assert_array_equal(np.asarray(train.image(3)), train.pixels[3])
    assert train.labels_NC.argmax(1).tolist() == [0, 1, 2, 3] * 2
    assert (train.labels_NC.sum(1) == 1).all()
    np.testing.assert_array_equal(train.selects_NC, train.labels_NC == 1)
    assert (dataset.name, dataset.task, dataset.train()) == ("cifar100", "single_label", train)


def python2(content: dict[str, Any]) -> bytes:
    """The bytes that Python 2 wrote: plain strings, an array's bytes among them, and numpy's old module."""
    raw = content["data"].tobytes()
    out = b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    out += b"M" + len(content["data"]).to_bytes(2, "little") + b"M\x00\x0c\x86"
    out += b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    out += b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    out += b"U\x0bfine_labels](" + b"".join(b"K" + bytes([label]) for label in content["fine_labels"]) + b"eu."
    return out


def test_a_pickle_of_python_2_is_read() -> None:
    content = tiny.cifar_batch([3, 1, 2], seed=5)
    data = python2(content)
    assert "SHORT_BINSTRING" in {operation.name for operation, _, _ in pickletools.genops(data)}
    found = load_batch(data, "train")
    np.testing.assert_array_equal(found["data"], content["data"])
    assert found["fine_labels"] == [3, 1, 2]


def test_labels_may_be_an_array(tmp_path: Path) -> None:
    root = tiny.cifar_folder(tmp_path)
    file = root / "cifar-100-python" / "test"
    content = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({**content, "fine_labels": np.array([3, 2, 1, 0])}))
    assert cifar100_dataset(root, verify=False).test().labels_NC.argmax(1).tolist() == [3, 2, 1, 0]


def test_keys_may_be_bytes() -> None:
    found = load_batch(pickle.dumps({b"data": np.arange(3, dtype=np.uint8)}), "train")
    assert found["data"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("given", ["folder of the archive", "archive", "parent", "unpacked"])
def test_archive_and_folder_are_the_same(tmp_path: Path, name: str, given: str) -> None:
    make = {"cifar10": cifar10_dataset, "cifar100": cifar100_dataset}[name]
    if "archive" in given:
        archive = tiny.cifar_archive(tmp_path / "archive", name)
        root = archive if given == "archive" else archive.parent
    else:
        root = tiny.cifar_folder(tmp_path / "folder", name)
        root = next(root.iterdir()) if given == "unpacked" else root
    dataset = make(root, verify=False)
    count = {"cifar10": 40, "cifar100": 8}[name]
    assert (len(dataset.train()), len(dataset.test())) == (count, 4)
    reference = make(tiny.cifar_folder(tmp_path / "again", name), verify=False)
    np.testing.assert_array_equal(dataset.train().pixels, reference.train().pixels)  # type: ignore[arg-type]
    np.testing.assert_array_equal(dataset.test().labels_NC, reference.test().labels_NC)


def test_superclasses(tmp_path: Path) -> None:
    dataset = cifar100_dataset(tiny.cifar_folder(tmp_path), labels="coarse", verify=False)
    assert (dataset.train().classes, dataset.name) == (("insect", "mammal"), "cifar100_coarse")
    assert dataset.train().labels_NC.argmax(1).tolist() == [0, 0, 1, 1] * 2
    with pytest.raises(UserError, match=r"labels is 'coarse'; use one of 'fine'"):
        CifarDataset(tmp_path, "cifar10", "coarse")


def test_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tiny.cifar_folder(tmp_path)
    with pytest.raises(UserError, match=r"meta has the MD5 sum \w{32}, but expected the official 7973b.*verify=False"):
        cifar100_dataset(root).train()
    folder = root / "cifar-100-python"
    sums = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    layout = cifar.LAYOUTS["cifar100"]
    monkeypatch.setitem(cifar.LAYOUTS, "cifar100", cifar._Layout(**{**vars(layout), "md5": sums}))
    assert len(cifar100_dataset(root).train()) == 8
    (folder / "train").write_bytes((folder / "test").read_bytes())
    with pytest.raises(UserError, match="train has the MD5 sum"):
        cifar100_dataset(root).train()


def test_the_official_sums_are_those_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    for name, official in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        layout = cifar.LAYOUTS[name]
        assert dict(layout.md5) == {
            **dict(official.train_list),
            **dict(official.test_list),
            official.meta["filename"]: official.meta["md5"],
            official.filename: official.tgz_md5,
        }
        assert (layout.folder, layout.archive) == (official.base_folder, official.filename)


@pytest.mark.parametrize("where", ["value", "key", "in a list", "array state"])
def test_a_pickle_with_code_runs_nothing(tmp_path: Path, where: str) -> None:
    harm = Harm(tmp_path / "harm")
    content: Any = {
        "value": {"data": harm},
        "key": {"data": 1, "x": (harm,)},
        "in a list": [harm],
        "array state": {"data": np.array([harm], dtype=object)},
    }[where]
    for protocol in range(6):
        with pytest.raises(UserError, match=r"train holds code \(\w+\.mkdir\), which is not run.*download it again"):
            load_batch(pickle.dumps(content, protocol=protocol), "train")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(U\x031+1tR.",
        b"c__builtin__\ngetattr\n.",
        b"cnumpy\nload\n(U\x01xtR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"cos\nsystem\n(U\x04trueTtR.",
        b"(U\x04trueios\nsystem\n.",
        b"\x80\x02Pan id\n.",
    ],
    ids=["eval", "getattr", "numpy.load", "scalar", "system", "inst", "persistent id"],
)
def test_names_that_are_no_array_are_refused(data: bytes) -> None:
    with pytest.raises(UserError, match=r"holds code|is damaged"):
        load_batch(data, "train")


def test_arrays_that_are_no_numbers_are_refused() -> None:
    for array in (np.array(["a"], dtype=object), np.array([(1,)], dtype=[("x", "u1")]), np.array(["text"])):
        with pytest.raises(UserError, match="train is damaged or no pickle"):
            load_batch(pickle.dumps({"data": array}), "train")


@pytest.mark.parametrize("keep", [0, 1, 20, 300, -1])
def test_cut_off(keep: int) -> None:
    data = pickle.dumps(tiny.cifar_batch([0, 1]), protocol=2)[:keep]
    with pytest.raises(UserError, match=r"train is damaged or no pickle.* bytes\).*download it again"):
        load_batch(data, "train")


def test_random_bytes_never_do_anything_else_than_raise() -> None:
    good = pickle.dumps(tiny.cifar_batch([0]), protocol=2)
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good)
        for place in rng.integers(0, 200, 3):
            data[place] = rng.integers(0, 256)
        with contextlib.suppress(UserError):
            assert isinstance(load_batch(bytes(data), "train"), dict)


def test_views_of_pixels(tmp_path: Path) -> None:
    table = cifar100_dataset(tiny.cifar_folder(tmp_path), verify=False).train()
    assert table.pixels is not None
    rows = np.array([5, 2])
    for size in (32, 16):
        view = SessionView(table, rows, table.labels_NC[rows], size)
        (batch,) = Loader(view, SessionSampler(2, 0, 0, shuffle=False), 2)
        assert batch["inputs"].shape == (2, size, size, 3)
        assert batch["rows"].tolist() == [5, 2]
        assert batch["targets"][0].tolist() == [0, 1, 0, 0]
        if size == 32:
            np.testing.assert_array_equal(batch["inputs"].numpy(), table.pixels[rows])
    table.check_files()  # there are none
    assert table.reorder(("dog", "cat", "bee", "ant")).pixels is table.pixels
