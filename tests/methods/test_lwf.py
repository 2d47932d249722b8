"""Options of LwF against values worked out by hand."""

import math

import pytest
import torch
from engine.test_run import assert_same_weights, config, scenes, weights  # noqa: F401  (a fixture)
from golden import BACKBONE, BATCH, LINEAR, SIZE, SPLITS, batches
from phase_calls import after_training
from tiny import run_until

from mlcil.engine.train import train
from mlcil.errors import UserError
from mlcil.evaluation.calibration import platt
from mlcil.methods import LwF
from mlcil.methods.base import SessionContext
from mlcil.methods.lwf import relation_loss
from mlcil.models.network import IncrementalNetwork


def made(**options):
    torch.manual_seed(0)
    return LwF(IncrementalNetwork(BACKBONE, LINEAR, SIZE), **options).double()


def begin(method, index, task="multi_label"):
    low, high = SPLITS[index]
    method.begin_session(SessionContext(index, low, high, 2, SPLITS[-1][1], 2.0, 1.0, BATCH, task=task))
    return method.double()


def test_relations_by_hand():
    # three points with mean 0, before and after
    old = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    half, root = 0.5, math.sqrt(3) / 2
    new = torch.tensor([[1.0, 0.0], [half, root], [-1 - half, -root]])
    cosines_old = (0.0, -1 / math.sqrt(2), -1 / math.sqrt(2))
    cosines_new = (half, -1.5 / math.sqrt(3), (-0.75 - 0.75) / math.sqrt(3))
    expected = sum((math.atanh(a) - math.atanh(b)) ** 2 for a, b in zip(cosines_old, cosines_new, strict=True)) / 3
    assert relation_loss(old, new).item() == pytest.approx(expected, rel=1e-5)
    assert relation_loss(old, 3 * old + 5).item() == pytest.approx(0, abs=1e-9)  # neither scale nor place matters
    assert relation_loss(old[:1], new[:1]).item() == 0
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert relation_loss(opposite, opposite[:, [1, 0]]).isfinite()


def test_relations_teach_the_student_alone():
    old, new = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    relation_loss(old, new).backward()
    assert old.grad is None
    assert new.grad.isfinite().all()
    assert new.grad.abs().sum() > 0


def test_the_relation_term_joins_the_others():
    plain, more = begin(begin(made(), 0), 1), begin(begin(made(relation_weight=2.0), 0), 1)
    batch = batches(1)[0]
    for method in (plain, more):
        method.train()
    losses, with_relations = plain(**batch, mode="loss"), more(**batch, mode="loss")
    features = (more.teacher_output(batch["inputs"]).features_BK, more.network(batch["inputs"]).features_BK)
    assert set(with_relations) - set(losses) == {"loss_relation"}
    torch.testing.assert_close(with_relations["loss_kd"], losses["loss_kd"])
    torch.testing.assert_close(with_relations["loss_relation"], 2 * relation_loss(*features))


def test_a_class_is_corrected_once_and_distilled_as_corrected():
    method = begin(made(calibrated=True, temperature=1.0), 0)
    after_training(method, batches(0))
    method.eval()
    with torch.no_grad():
        logits = torch.cat([method.network(batch["inputs"]).logits_BC.float() for batch in batches(0)]).numpy()
    targets = torch.cat([batch["targets"] for batch in batches(0)]).numpy()
    correction = torch.from_numpy(platt(logits, targets))
    torch.testing.assert_close(method.correction_C2, correction, rtol=1e-6, atol=1e-8)
    begin(method, 1).train()
    batch = batches(1)[0]
    with torch.no_grad():
        found = method(**batch, mode="loss")["loss_kd"]
        old = method.teacher_output(batch["inputs"]).logits_BC
        p = torch.sigmoid(method.network(batch["inputs"]).logits_BC[:, :3])
    q = torch.sigmoid(old * correction[:, 0] + correction[:, 1])
    expected = -(q * p.log() + (1 - q) * (1 - p).log()).sum()
    torch.testing.assert_close(found, method.sum_scale * expected)
    after_training(method, batches(1))
    assert method.correction_C2.shape == (5, 2)
    assert method.correction_C2[:3].tolist() == [[1.0, 0.0]] * 3
    again = made(calibrated=True)
    again.load_method_state(method.method_state())
    assert torch.equal(again.correction_C2, method.correction_C2)


def test_calibration_is_for_many_labels():
    method = begin(made(calibrated=True), 0, "single_label")
    with pytest.raises(UserError, match=r"method\.calibrated is for data with many labels an image"):
        method.phases(method.context)


def test_a_stopped_run_goes_on_with_the_same_numbers(scenes, tmp_path):  # noqa: F811
    def run(folder):
        method = {"type": "LwF", "calibrated": True, "relation_weight": 1.0}
        return config(scenes, folder, network={"head": LINEAR}, method=method, train_cfg={"max_epochs": 2})

    train(run(tmp_path / "whole"))
    run_until(run(tmp_path / "stopped"), session=1, epoch=1)
    train(run(tmp_path / "stopped"), resume=True)
    assert_same_weights(
        *(weights(tmp_path / name / "saved" / "run" / "session_2.pth") for name in ("whole", "stopped"))
    )
