"""The generator of fixture weights agrees with the checksums and probes that were stored with the fixtures."""

import numpy as np
import parity_fixtures
import pytest

Z = parity_fixtures.load()
SHAPES = parity_fixtures.shapes()
SEED_A = int(Z["meta/seed_A"])


@pytest.mark.parametrize(("case", "model"), [("a", "thin_ica"), ("i", "full_ica")])
def test_checksums(case, model):
    weights = parity_fixtures.make_weights(SHAPES[model], SEED_A)
    floats = [v.astype(np.float64) for v in weights.values() if v.dtype == np.float32]
    found = [sum(v.sum() for v in floats), sum((v * v).sum() for v in floats), sum(v.size for v in floats)]
    assert {name: list(v.shape) for name, v in weights.items()} == SHAPES[model]
    np.testing.assert_allclose(found, Z[f"{case}/state_checksum"], rtol=1e-9)


def test_probes():
    names = [str(name) for name in Z["a/state_probe_names"]]
    weights = parity_fixtures.make_weights(SHAPES["thin_ica"], SEED_A)
    found = [weights[name].reshape(-1)[0] for name in names]
    np.testing.assert_allclose(found, Z["a/state_probe_first"], rtol=1e-7)


def test_only_norms_with_statistics_have_negative_weights():
    shapes = {"norm.weight": [8], "abn.weight": [8], "abn.running_mean": [8], "abn.running_var": [8]}
    weights = parity_fixtures.make_weights(shapes, SEED_A)
    assert (weights["norm.weight"] > 0).all()
    np.testing.assert_array_equal(weights["abn.weight"] < 0, np.arange(8) % 5 == 2)


def test_a_tensor_depends_on_its_own_name_and_the_seed_only():
    shapes = SHAPES["thin_ica"]
    name = next(n for n, shape in shapes.items() if len(shape) > 1)
    alone = parity_fixtures.make_weights({name: shapes[name]}, SEED_A)[name]
    np.testing.assert_array_equal(alone, parity_fixtures.make_weights(shapes, SEED_A)[name])
    assert not np.array_equal(alone, parity_fixtures.make_weights({name: shapes[name]}, SEED_A + 1)[name])
