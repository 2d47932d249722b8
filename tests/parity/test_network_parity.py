"""Cases a and i: logits, tokens and maps of the thin and the full-size ICA network."""

import numpy as np
import parity_fixtures
import pytest
import torch
from official_models import DTYPES, images, network_from_shapes

from mlcil.interop.official import to_official

Z = parity_fixtures.load()
SHAPES = parity_fixtures.shapes()
SEED_A = int(Z["meta/seed_A"])


def stage_norms(network, output, x):
    """L2 norm per image after the stem, the four stages and the patch projection."""
    from mlcil.models.tresnet import space_to_depth

    stem = network.backbone.stem(space_to_depth(x))
    patches = network.head.patch_tokens(output.maps[-1])
    return np.stack([m.flatten(1).double().norm(dim=1).numpy() for m in (stem, *output.maps, patches)])


@torch.no_grad()
def run(key, case, image_key, dtype):
    network = network_from_shapes(SHAPES[key], SEED_A).eval().to(dtype)
    x = images(Z[image_key], dtype)
    return network, x, network(x)


@pytest.mark.parametrize(
    ("key", "case", "image_key", "atol"),
    [("thin_ica", "a", "a/images_u8", 1e-5), ("full_ica", "i", "i/image_u8", 2e-5)],
)
def test_forward_float32(key, case, image_key, atol):
    network, x, output = run(key, case, image_key, torch.float32)
    np.testing.assert_allclose(output.logits_BC, Z[f"{case}/f32/logits"], rtol=0, atol=atol)
    np.testing.assert_allclose(output.tokens_BSD, Z[f"{case}/f32/tokens"], rtol=0, atol=atol)
    np.testing.assert_allclose(output.features_BK, Z[f"{case}/f32/pool_embeddings"], rtol=0, atol=atol)
    with torch.no_grad():
        np.testing.assert_allclose(stage_norms(network, output, x), Z[f"{case}/f32/stage_l2"], rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "case", "image_key"), [("thin_ica", "a", "a/images_u8"), ("full_ica", "i", "i/image_u8")]
)
def test_forward_float64(key, case, image_key):
    _, _, output = run(key, case, image_key, torch.float64)
    np.testing.assert_allclose(output.logits_BC, Z[f"{case}/f64/logits"], rtol=1e-7, atol=1e-9)
    if f"{case}/f64/tokens" in Z:
        np.testing.assert_allclose(output.tokens_BSD, Z[f"{case}/f64/tokens"], rtol=1e-7, atol=1e-9)


def test_intermediate_values_of_the_thin_network():
    network, _, output = run("thin_ica", "a", "a/images_u8", torch.float32)
    with torch.no_grad():
        patches = network.head.patch_tokens(output.maps[-1])
    np.testing.assert_allclose(patches, Z["a/f32/patch_tokens_no_pos"], rtol=0, atol=1e-5)
    first = output.maps[1].flatten(1)[:, : Z["a/f32/x2_first64"].shape[1]]
    np.testing.assert_allclose(first, Z["a/f32/x2_first64"], rtol=0, atol=1e-5)


def test_parameter_count_of_the_full_network():
    network = network_from_shapes(SHAPES["full_ica"], SEED_A)
    assert sum(p.numel() for p in network.parameters()) == int(Z["i/num_parameters"])


@pytest.mark.parametrize("key", ["thin_ica", "full_ica", "thin_baseline"])
def test_state_dict_goes_back_to_the_official_names_and_values(key):
    weights = parity_fixtures.make_weights(SHAPES[key], SEED_A)
    back = to_official(network_from_shapes(SHAPES[key], SEED_A).state_dict())
    assert set(back) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name].numpy(), value, err_msg=name)
    assert all(tuple(back[name].shape) == tuple(shape) for name, shape in SHAPES[key].items())


def test_dtypes_are_those_of_the_fixtures():
    assert {key.split("/")[1] for key in Z.files if key.startswith("a/f")} <= set(DTYPES)
