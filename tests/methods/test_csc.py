"""CSC's loss against numbers that are worked out here."""

import math

import pytest
import torch
from golden import BACKBONE, BATCH, LINEAR, SIZE, SPLITS, batches

from mlcil.methods import CSC
from mlcil.methods.base import Batch, SessionContext
from mlcil.methods.csc import judged_bce, one_sided_entropy
from mlcil.models.network import IncrementalNetwork


def make(sessions=2, **options):
    torch.manual_seed(2)
    method = CSC(IncrementalNetwork(BACKBONE, {"type": "csc", "node_channels": 16}, SIZE), **options)
    for index in range(sessions):
        method.double()  # the teacher too
        low, high = SPLITS[index]
        method.begin_session(SessionContext(index, low, high, 2, SPLITS[-1][1], 2.0, 1.0, BATCH))
    return method.double().eval()


def batch_of(index):
    return Batch(**batches(index)[0])


def test_cross_entropy_of_what_is_judged():
    logits = torch.tensor([[0.9, 0.2], [0.4, 0.5]], dtype=torch.float64).logit()
    targets = torch.tensor([[1.0, 0.25], [-1, 0]])
    soft = -0.25 * math.log(0.2) - 0.75 * math.log(0.8)
    assert judged_bce(logits, targets).item() == pytest.approx((-math.log(0.9) + soft - math.log(0.5)) / 3)
    assert judged_bce(logits, torch.full((2, 2), -1.0)).item() == 0


def test_the_entropy_term_is_lowest_at_one_over_e():
    logits = torch.tensor([[1 / math.e, 0.5], [0.1, 0.9]], dtype=torch.float64).logit().requires_grad_()
    value = one_sided_entropy(logits)
    wanted = [-1 / math.e + 0.5 * math.log(0.5), 0.1 * math.log(0.1) + 0.9 * math.log(0.9)]
    assert value.item() == pytest.approx(sum(wanted) / 2)
    value.backward()
    assert logits.grad[0, 0].item() == pytest.approx(0, abs=1e-12)
    assert logits.grad[1, 0] < 0 < logits.grad[1, 1]  # descent brings both nearer


@pytest.mark.parametrize("entropy", ["old", "seen"])
def test_the_terms_of_a_later_session(entropy):
    method, batch = make(entropy=entropy, beta=0.1), batch_of(1)
    losses = method.loss(batch)
    logits = method.network(batch.inputs).logits_BC
    teacher = torch.sigmoid(method.teacher_output(batch.inputs).logits_BC)
    assert losses.keys() == {"loss_cls", "loss_distill", "loss_entropy"}
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert losses["loss_distill"].item() == pytest.approx(bce(logits[:, :3], teacher).item() / 2)
    known = batch.targets >= 0  # new images say nothing of old classes, replayed ones do
    assert known[:, 0].tolist() == (batch.origins == 0).tolist()
    given = batch.targets[known].to(logits.dtype)
    assert losses["loss_cls"].item() == pytest.approx(bce(logits[known], given).item() / 2)
    p = torch.sigmoid(logits[:, :3] if entropy == "old" else logits)
    assert losses["loss_entropy"].item() == pytest.approx(0.1 * (p * p.log()).sum(1).mean().item())


def test_the_base_session_has_the_labels_alone():
    method, batch = make(sessions=1), batch_of(0)
    (loss,) = method.loss(batch).values()
    logits = method.network(batch.inputs).logits_BC
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.targets.double())
    assert loss.item() == pytest.approx(wanted.item())
    assert method.session_report() == {}


def test_scores_come_with_a_warning():
    assert "calibrated thresholds" in make().session_report()["csc"]["scores"]
    assert make(beta=0.0).session_report() == {}


def test_bytes_hold_the_statistics_of_the_norm():
    method = make()
    head = method.network.head
    beyond = sum(p.nbytes for p in head.parameters()) - 8 * 5 * (head.in_channels + 1)  # a linear layer, double
    assert method.state_bytes()["parameters"] == beyond + sum(buffer.nbytes for buffer in head.buffers())


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"network\.head\.type='csc'"):
        CSC(IncrementalNetwork(BACKBONE, LINEAR, SIZE))
    with pytest.raises(ValueError, match="entropy is 'all'; use 'old' or 'seen'"):
        make(entropy="all")
