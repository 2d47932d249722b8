"""The generator of fixture weights agrees with the checksums and probes that were stored with the fixtures."""

import numpy as np
import torch
from krt_fixtures import each, weights


@each("case model", lambda Z: [("a", "thin_ica"), ("i", "full_ica")])
def test_checksums(Z, case, model):
    made = Z.weights(model, Z.seeds[0])
    floats = [v.double() for v in made.values() if v.dtype == torch.float32]
    found = [sum(v.sum() for v in floats), sum((v * v).sum() for v in floats), sum(v.numel() for v in floats)]
    assert {name: list(v.shape) for name, v in made.items()} == Z.shapes[model]
    np.testing.assert_allclose(found, Z[f"{case}/state_checksum"], rtol=1e-9)


@each()
def test_probes(Z):
    names = [str(name) for name in Z["a/state_probe_names"]]
    made = Z.weights("thin_ica", Z.seeds[0])
    found = [made[name].reshape(-1)[0] for name in names]
    np.testing.assert_allclose(found, Z["a/state_probe_first"], rtol=1e-7)


def test_only_norms_with_statistics_have_negative_weights():
    shapes = {"norm.weight": [8], "abn.weight": [8], "abn.running_mean": [8], "abn.running_var": [8]}
    made = weights(shapes, 1)
    assert (made["norm.weight"] > 0).all()
    np.testing.assert_array_equal(made["abn.weight"] < 0, np.arange(8) % 5 == 2)


def test_a_tensor_depends_on_its_own_name_and_the_seed_only():
    shapes = {"a.weight": [4, 3], "b.weight": [4, 3]}
    alone = weights({"a.weight": [4, 3]}, 1)["a.weight"]
    assert torch.equal(alone, weights(shapes, 1)["a.weight"])
    assert not torch.equal(alone, weights(shapes, 1)["b.weight"])
    assert not torch.equal(alone, weights(shapes, 2)["a.weight"])
