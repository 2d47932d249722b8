"""Graphs against PyTorch: features of a frozen backbone, and whole numbers of 8 bits."""

import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny import BACKBONE, SIZE

from mlcil.datasets.feature_store import BATCH, TorchEngine
from mlcil.errors import UserError
from mlcil.inference import features
from mlcil.inference.export import to_onnx
from mlcil.inference.features import LastMap, OnnxEngine, feature_engine
from mlcil.inference.quantise import quantised, safe_bounds
from mlcil.models.folding import folded
from mlcil.models.network import IncrementalNetwork
from mlcil.system.onnx_graph import TOGETHER, Graph

PHOTOS = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)


def network(**backbone):
    torch.manual_seed(0)
    return IncrementalNetwork(backbone or BACKBONE, {"type": "linear"}, SIZE, frozen_backbone=True).eval()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def installed(features_by_torch, monkeypatch):
    monkeypatch.setattr(features, "has_onnxruntime", lambda: True)


@pytest.fixture(scope="module")
def content():
    return to_onnx(LastMap(folded(network()).backbone), SIZE, "maps")


def test_the_engines_agree_and_the_graph_is_written_once(monkeypatch):
    frozen, told = network(), []
    one, other = feature_engine(frozen, "torch", told.append), feature_engine(frozen, "auto", told.append)
    assert (type(one), type(other), told) == (TorchEngine, OnnxEngine, [])
    assert (one.weights, one.shape) == (other.weights, other.shape)
    assert one.name != other.name
    images = torch.from_numpy(PHOTOS)
    expected, found = one(images), other(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    monkeypatch.setattr(features, "to_onnx", lambda *_: pytest.fail("a graph that is there is written again"))
    again = feature_engine(frozen, "onnxruntime", told.append)
    np.testing.assert_array_equal(again(images), found)
    np.testing.assert_array_equal(again(images[3:5]), found[3:5])  # whatever else is computed beside an image


def test_a_damaged_graph_is_written_again_and_a_wrong_one_refused(content, tmp_path, monkeypatch):
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path))
    monkeypatch.setattr(features, "to_onnx", lambda *_: content)  # of the weights that network() has
    feature_engine(network(), "onnxruntime", print)
    (path,) = (tmp_path / "graphs").iterdir()
    path.write_bytes(content[: len(content) // 2])
    feature_engine(network(), "onnxruntime", print)
    assert path.read_bytes() == content
    told, others = [], network()
    torch.nn.init.ones_(others.backbone.stem.conv.weight)
    assert isinstance(feature_engine(others, "auto", told.append), TorchEngine)
    assert "features by PyTorch: onnxruntime's maps of this backbone differ by" in told[0]
    with pytest.raises(UserError, match="maps of this backbone differ by"):
        feature_engine(others, "onnxruntime", print)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(features, "has_onnxruntime", lambda: False)
    assert isinstance(feature_engine(network(), "auto", print), TorchEngine)
    monkeypatch.setattr("mlcil.system.onnx_graph.has_onnxruntime", lambda: False)
    with pytest.raises(UserError, match="needs the package onnxruntime, which is not installed"):
        Graph(b"", "a.onnx")
    with pytest.raises(UserError, match="engine is 'tensorrt'"):
        feature_engine(network(), "tensorrt", print)


def test_neither_threads_nor_neighbours_change_a_result(content, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # of nested levels
    np.testing.assert_array_equal(Graph(content, "a.onnx")(PHOTOS), Graph(content, "a.onnx", threads=1)(PHOTOS))
    alone, several = Graph(content, "a.onnx", threads=1), Graph(content, "a.onnx", threads=3)
    photos = np.concatenate([PHOTOS, PHOTOS[:1]])  # an odd number
    expected = np.concatenate([alone(photos[low : low + TOGETHER]) for low in range(0, len(photos), TOGETHER)])
    np.testing.assert_array_equal(alone(photos), expected)
    np.testing.assert_array_equal(several(photos), expected)
    assert len(alone(photos[:0])) == 0


def test_eight_bits_follow_the_floats_and_no_two_neighbours_leave_16_bits(content):
    small = quantised(content, iter(PHOTOS))
    expected, found = (Graph(some, "a.onnx")(PHOTOS) for some in (content, small))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99
    assert not np.array_equal(expected, found)
    arrays = {x.name: numpy_helper.to_array(x) for x in onnx.load_from_string(small).graph.initializer}
    weights = [x for x in arrays.values() if x.dtype == np.int8 and x.ndim == 4]
    assert len(weights) >= 10
    for weight_OIhw in weights:
        for ordered in (weight_OIhw, weight_OIhw.transpose(0, 2, 3, 1)):
            flat = ordered.reshape(len(ordered), -1).astype(int)
            assert np.abs(flat[:, 1:] + flat[:, :-1]).max(initial=0) * 255 < 2**15
    assert max(np.abs(weight.astype(int)).max() for weight in weights) > 64  # more than 7 bits


def test_bounds_of_a_channel():
    weight_OIhw = np.array([[3.0, -4.0], [3.0, 4.0], [0.0, 0.0]], np.float32).reshape(3, 2, 1, 1)
    np.testing.assert_allclose(safe_bounds(weight_OIhw), [4, 7, 1e-8])


def test_no_image_to_calibrate_with(content):
    with pytest.raises(UserError, match="int8 needs images to calibrate with"):
        quantised(content, iter(()))
