"""Cases c and g: the asymmetric loss, POD and the cosine of embeddings."""

import numpy as np
import parity_fixtures
import pytest
import torch

from mlcil.losses.asymmetric import asymmetric_loss
from mlcil.losses.distillation import one_minus_cosine as pod_flat
from mlcil.methods.krt import token_loss
from mlcil.methods.pod import pod_spatial

Z = parity_fixtures.load()
RTOL = 1e-6
#: what each setting's name stands for (gamma_neg, gamma_pos, clip); see krt_parity.md, case c
SETTINGS = {"default": (4, 0, 0.05), "gp1": (4, 1, 0.05), "g21": (2, 1, 0.1), "bce": (0, 0, 0)}
CASES = sorted({key.split("/")[1] for key in Z.files if key.startswith("c/") and key.endswith("/loss")})
DTYPES = {"f32": torch.float32, "f64": torch.float64}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("setting", CASES)
def test_asymmetric_loss(setting, precision):
    gamma_neg, gamma_pos, clip = SETTINGS[setting]
    logits = torch.tensor(Z["c/logits"], dtype=DTYPES[precision], requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor(Z["c/targets"]), gamma_neg, gamma_pos, clip)
    loss.backward()
    assert loss.dtype == DTYPES[precision]
    # the double-precision fixtures were made from the same float32 logits, hence agree much closer
    rtol = RTOL if precision == "f32" else 1e-12
    np.testing.assert_allclose(loss.item(), Z[f"c/{setting}/{precision}/loss"], rtol=rtol)
    expected = Z[f"c/{setting}/{precision}/grad"]
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def maps(side):
    names = sorted((k for k in Z.files if k.startswith(f"g/{side}_")), key=lambda k: int(k.rsplit("_", 1)[1]))
    return [torch.tensor(Z[name]) for name in names]


@pytest.mark.parametrize("collapse", sorted(k.removeprefix("g/pod_") for k in Z.files if k.startswith("g/pod_")))
def test_pod(collapse):
    value = pod_spatial(maps("old"), maps("new"), collapse)
    np.testing.assert_allclose(value, Z[f"g/pod_{collapse}"], rtol=RTOL)


def test_embedding_similarity():
    old, new = torch.tensor(Z["g/emb_old"]), torch.tensor(Z["g/emb_new"])
    np.testing.assert_allclose(pod_flat(old, new), Z["g/embeddings_similarity"], rtol=RTOL)
    # the token loss is the same cosine over concatenated tokens
    np.testing.assert_allclose(token_loss(old[:, None], new[:, None]), Z["g/embeddings_similarity"], rtol=RTOL)
