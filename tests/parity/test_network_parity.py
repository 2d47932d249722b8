"""Cases a and i: logits, tokens and maps of the thin and the full-size ICA network."""

import numpy as np
import torch
from fixture_sets import DTYPES
from krt_fixtures import each

from mlcil.interop.official import to_official

#: model, case, images, bar of the float32 values
MODELS = [("thin_ica", "a", "a/images_u8", 1e-5), ("full_ica", "i", "i/image_u8", 2e-5)]


def stage_norms(network, output, x):
    """L2 norm per image after the stem, the four stages and the patch projection."""
    from mlcil.models.tresnet import space_to_depth

    stem = network.backbone.stem(space_to_depth(x))
    patches = network.head.patch_tokens(output.maps[-1])
    return np.stack([m.flatten(1).double().norm(dim=1).numpy() for m in (stem, *output.maps, patches)])


@torch.no_grad()
def run(Z, key, image_key, dtype):
    network = Z.network(key, Z.seeds[0]).eval().to(dtype)
    x = Z.images(image_key, dtype)
    return network, x, network(x)


@each("key case image_key atol", lambda Z: MODELS)
def test_forward_float32(Z, key, case, image_key, atol):
    network, x, output = run(Z, key, image_key, torch.float32)
    np.testing.assert_allclose(output.logits_BC, Z[f"{case}/f32/logits"], rtol=0, atol=atol)
    np.testing.assert_allclose(output.tokens_BSD, Z[f"{case}/f32/tokens"], rtol=0, atol=atol)
    np.testing.assert_allclose(output.features_BK, Z[f"{case}/f32/pool_embeddings"], rtol=0, atol=atol)
    with torch.no_grad():
        np.testing.assert_allclose(stage_norms(network, output, x), Z[f"{case}/f32/stage_l2"], rtol=1e-5)


@each("key case image_key", lambda Z: [model[:3] for model in MODELS])
def test_forward_float64(Z, key, case, image_key):
    _, _, output = run(Z, key, image_key, torch.float64)
    np.testing.assert_allclose(output.logits_BC, Z[f"{case}/f64/logits"], rtol=1e-7, atol=1e-9)
    if f"{case}/f64/tokens" in Z:
        np.testing.assert_allclose(output.tokens_BSD, Z[f"{case}/f64/tokens"], rtol=1e-7, atol=1e-9)


@each()
def test_intermediate_values_of_the_thin_network(Z):
    network, _, output = run(Z, "thin_ica", "a/images_u8", torch.float32)
    with torch.no_grad():
        patches = network.head.patch_tokens(output.maps[-1])
    np.testing.assert_allclose(patches, Z["a/f32/patch_tokens_no_pos"], rtol=0, atol=1e-5)
    first = output.maps[1].flatten(1)[:, : Z["a/f32/x2_first64"].shape[1]]
    np.testing.assert_allclose(first, Z["a/f32/x2_first64"], rtol=0, atol=1e-5)


@each()
def test_parameter_count_of_the_full_network(Z):
    network = Z.network("full_ica", Z.seeds[0])
    assert sum(p.numel() for p in network.parameters()) == int(Z["i/num_parameters"])


@each("key", lambda Z: ["thin_ica", "full_ica", "thin_baseline"])
def test_state_dict_goes_back_to_the_official_names_and_values(Z, key):
    weights = Z.weights(key, Z.seeds[0])
    back = to_official(Z.network(key, Z.seeds[0]).state_dict())
    assert set(back) == set(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name].numpy(), value, err_msg=name)
    assert all(tuple(back[name].shape) == tuple(shape) for name, shape in Z.shapes[key].items())


@each()
def test_dtypes_are_those_of_the_fixtures(Z):
    assert {key.split("/")[1] for key in Z.keys("a/f")} <= set(DTYPES)
