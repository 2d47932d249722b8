"""Cases c and g: the asymmetric loss, POD and the cosine of embeddings."""

import numpy as np
import pytest
import torch
from fixture_sets import DTYPES
from krt_fixtures import each

from mlcil.losses.asymmetric import asymmetric_loss
from mlcil.losses.distillation import one_minus_cosine as pod_flat
from mlcil.methods.krt import token_loss
from mlcil.methods.pod import pod_spatial

RTOL = 1e-6


def settings(Z):
    """The settings of case c that are stored: name, gamma_neg, gamma_pos and clip."""
    number = r"([\d.]+)"
    stored = [name for name in Z.parts("c/") if f"c/{name}/f32/loss" in Z]
    return [(name, *Z.told(rf"`{name}` \(\D*?{number}, ?\D*?{number}, ?\D*?{number}\)")) for name in stored]


@pytest.mark.parametrize("precision", DTYPES)
@each("setting gamma_neg gamma_pos clip", settings)
def test_asymmetric_loss(Z, setting, gamma_neg, gamma_pos, clip, precision):
    logits = torch.tensor(Z["c/logits"], dtype=DTYPES[precision], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor(Z["c/targets"]), gamma_neg, gamma_pos, clip)
    loss.backward()
    assert loss.dtype == DTYPES[precision]
    # the double-precision fixtures were made from the same float32 logits, hence agree much closer
    rtol = RTOL if precision == "f32" else 1e-12
    np.testing.assert_allclose(loss.item(), Z[f"c/{setting}/{precision}/loss"], rtol=rtol)
    expected = Z[f"c/{setting}/{precision}/grad"]
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def maps(Z, side):
    names = sorted(Z.keys(f"g/{side}_"), key=lambda k: int(k.rsplit("_", 1)[1]))
    return [torch.tensor(Z[name]) for name in names]


@each("collapse", lambda Z: [key.removeprefix("g/pod_") for key in Z.keys("g/pod_")])
def test_pod(Z, collapse):
    value = pod_spatial(maps(Z, "old"), maps(Z, "new"), collapse)
    np.testing.assert_allclose(value, Z[f"g/pod_{collapse}"], rtol=RTOL)


@each()
def test_embedding_similarity(Z):
    old, new = torch.tensor(Z["g/emb_old"]), torch.tensor(Z["g/emb_new"])
    np.testing.assert_allclose(pod_flat(old, new), Z["g/embeddings_similarity"], rtol=RTOL)
    # the token loss is the same cosine over concatenated tokens
    np.testing.assert_allclose(token_loss(old[:, None], new[:, None]), Z["g/embeddings_similarity"], rtol=RTOL)
