"""What each baseline adds to fine-tuning, on numbers that can be checked by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from golden import BACKBONE, BATCH, LINEAR, SIZE, SPLITS, batches
from phase_calls import after_training, before_training

from mlcil.losses.asymmetric import asymmetric_loss
from mlcil.losses.criterion import MULTI_LABEL, SINGLE_LABEL
from mlcil.losses.distillation import sigmoid_distillation
from mlcil.methods import AGCN, ALIASES, OEWC, RCLP, BiC, DERpp, Finetune, ICaRL, LwF, SingleLabelBiC
from mlcil.methods.base import Batch, SessionContext
from mlcil.methods.bic import fit_scale_and_shift
from mlcil.methods.tpcil import edge_correlation
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import corrected
from mlcil.phases import Fit
from mlcil.registry import METHODS


def begin(method, index):
    low, high = SPLITS[index]
    method.begin_session(SessionContext(index, low, high, 2, SPLITS[-1][1], 2.0, 1.0, BATCH))
    return method.double().train()


def make(cls, head=None, **options):
    torch.manual_seed(3)
    return begin(cls(IncrementalNetwork(BACKBONE, head or LINEAR, SIZE), **options), 0)


def test_sigmoid_distillation_is_the_cross_entropy_of_the_teacher():
    old, new = torch.tensor([[0.0, 2.0]], dtype=torch.double), torch.tensor([[1.0, -1.0]], dtype=torch.double)
    q, p = torch.sigmoid(old / 2), torch.sigmoid(new / 2)
    wanted = -4 * (q * p.log() + (1 - q) * (1 - p).log()).sum()
    assert sigmoid_distillation(old, new, 2.0).item() == pytest.approx(wanted.item())
    same = old.clone().requires_grad_()
    sigmoid_distillation(old, same).backward()
    assert same.grad.abs().max() < 1e-12  # the teacher's own logits are the minimum


def test_lwf_and_er_leave_old_columns_of_new_images_to_the_option():
    data = batches(1)[0]
    batch = Batch(**data)
    for name in ("LwF", "ER", "PRS", "Finetune", "OEWC"):
        cls = METHODS.get(name)
        with pytest.raises(ValueError, match="old_labels is 'odd'"):
            make(cls, old_labels="odd")
        logits, losses = [], []
        for old_labels in ("ignored", "absent"):
            method = begin(make(cls, old_labels=old_labels), 1)
            logits.append(method.network(batch.inputs).logits_BC)
            losses.append(method.loss(batch)["loss_cls"].item())
        new = batch.origins == 1
        given = batch.targets.clamp(min=0)  # nothing else is unknown here
        wanted = method.classify(logits[1], given)
        assert losses[1] == pytest.approx(wanted.item())
        silent = method.classify(logits[0][new][:, 3:], given[new][:, 3:]) + method.classify(
            logits[0][~new], given[~new]
        )
        assert losses[0] == pytest.approx(silent.item())
        default = begin(make(cls), 1).loss(batch)["loss_cls"].item()
        assert default == pytest.approx(losses[0 if name == "LwF" else 1])


def test_only_labels_that_nobody_gave_become_absent():
    method = begin(begin(make(Finetune), 1), 2)
    targets = torch.tensor([[-1, -1, -1, -1, -1, -1, 1], [-1, -1, -1, -1, 1, -1, 0], [0, -1, 1, -1, 0, 0, -1.0]])
    batch = Batch(torch.zeros(3, 3, SIZE, SIZE), targets, torch.arange(3), torch.tensor([2, 1, 0]))
    absent = [[0, 0, 0, 0, 0, -1, 1], [0, 0, 0, -1, 1, -1, 0], [0, -1, 1, -1, 0, 0, -1]]
    assert method.targets(batch).tolist() == absent
    assert method.targets(batch, "ignored").tolist() == [targets[0].tolist(), *absent[1:]]
    assert batch.targets is targets
    assert targets[0, 0] == -1
    # a session that trains on all classes so far is given their labels, so that -1 is not judged
    method.context = dataclasses.replace(method.context, firsts=(0, 3, 0))
    assert method.targets(batch).tolist() == [targets[0].tolist(), *absent[1:]]
    # an image that a memory speaks for has no unknown label either
    method.context = dataclasses.replace(method.context, firsts=(0, 0, 5))
    assert method.targets(batch).tolist() == [absent[0], targets[1].tolist(), absent[2]]


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_the_data_choose_the_criterion(task):
    method = begin(make(LwF, temperature=3.0, weight=2.0), 1)
    method.context = dataclasses.replace(method.context, task=task)
    inputs = batches(1)[0]["inputs"]
    labels = torch.tensor([3, 4, 3, 4, 3, 0, 2, 1])
    targets = torch.nn.functional.one_hot(labels, 5).double()
    targets[labels > 2, :3] = -1
    origins = (labels > 2).long()
    losses = method.loss(Batch(inputs, targets, torch.arange(BATCH), origins))
    new, old = method.network(inputs).logits_BC, method.teacher_output(inputs).logits_BC
    if task == "single_label":
        cls = torch.nn.functional.cross_entropy(new, labels)
        kd = torch.nn.functional.cross_entropy(new[:, :3] / 3, (old / 3).softmax(1))
    else:
        cls = 64 / BATCH * asymmetric_loss(new, targets)
        kd = 64 / BATCH * sigmoid_distillation(old, new[:, :3], 3.0)
    assert losses["loss_cls"].item() == pytest.approx(cls.item())
    assert losses["loss_kd"].item() == pytest.approx(2 * kd.item())


def test_methods_of_one_form_keep_their_criterion():
    for cls, head, criterion in (
        (BiC, LINEAR, MULTI_LABEL),
        (ICaRL, LINEAR, MULTI_LABEL),
        (SingleLabelBiC, LINEAR, SINGLE_LABEL),
    ):
        method = make(cls, head)
        for task in ("multi_label", "single_label"):
            method.context = dataclasses.replace(method.context, task=task)
            assert method.criterion is criterion


def test_other_names_of_a_method():
    for name, (method, selections) in ALIASES.items():
        alias = METHODS.get(name)
        assert issubclass(alias, method)
        assert (alias.__name__, alias.memory_selections) == (name, selections)
        assert alias.loss is method.loss


def test_oewc_penalty_is_zero_at_the_old_weights_and_quadratic_away_from_them():
    method = make(OEWC)
    after_training(method, batches(0))
    assert all((value >= 0).all() for value in method.fisher.values())
    begin(method, 1)
    assert method.penalty().item() == pytest.approx(0)  # the grown classifier is compared in its old rows
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter += 0.1
    total = sum(value.sum() for value in method.fisher.values())
    assert method.penalty().item() == pytest.approx(0.01 * total.item())
    loss = method(**batches(1)[0], mode="loss")["loss_ewc"]
    assert loss.item() == pytest.approx(500 * method.penalty().item())


def test_oewc_decays_the_old_matrix_and_survives_a_resume():
    method = make(OEWC, decay=0.5)
    after_training(method, batches(0))
    before = {name: value.clone() for name, value in method.fisher.items()}
    begin(method, 1)
    after_training(method, [])  # no image, nothing new to add
    for name, value in before.items():
        torch.testing.assert_close(method.fisher[name][: len(value)], 0.5 * value)
    assert len(method.fisher["head.linear.weight"]) == 5
    again = make(OEWC)
    again.load_method_state(method.method_state())
    assert all(torch.equal(again.fisher[name], method.fisher[name]) for name in before)


def test_oewc_takes_each_images_own_gradient():
    """Two images of opposite gradients: their mean is zero, the importance is not."""
    method = make(OEWC)
    image = batches(0)[0]["inputs"][:1]
    probe = make(OEWC)
    for targets in ([1.0, -1, -1], [0.0, -1, -1]):
        after_training(probe, [{"inputs": image, "targets": torch.tensor([targets])}])
        if targets[0]:
            alone = probe.fisher["head.linear.bias"].clone()
            probe.fisher = {}
    twice = [{"inputs": image.repeat(2, 1, 1, 1), "targets": torch.tensor([[1.0, -1, -1], [0.0, -1, -1]])}]
    after_training(method, twice)
    with torch.no_grad():
        score = torch.sigmoid(method.eval().network(image).logits_BC[0, 0])
    assert alone[0].item() == pytest.approx((1 - score).square().item())
    wanted = ((1 - score).square() + score.square()) / 2
    assert method.fisher["head.linear.bias"][0].item() == pytest.approx(wanted.item())
    assert method.fisher["head.linear.bias"][1:].abs().max().item() == 0


def test_icarls_cosines_become_scores_that_a_threshold_can_judge():
    method = make(ICaRL, head={"type": "prototype"})
    data = batches(0)
    assert method.logit_correction() is None
    after_training(method, data)
    assert [phase.on for phase in method.phases(method.context) if isinstance(phase, Fit)] == ["clean"]
    kept = method.logit_correction()
    method.eval()
    with torch.no_grad():
        logits = torch.cat([method.network(b["inputs"]).logits_BC for b in data])
    scores = torch.sigmoid(corrected(logits, kept))
    targets = torch.cat([b["targets"] for b in data])
    assert scores.mean(0).tolist() == pytest.approx(targets.mean(0).tolist(), abs=0.05)
    assert logits.argsort(0).tolist() == scores.argsort(0).tolist()
    begin(method, 1)
    after_training(method, batches(1))
    assert method.logit_correction().shape == (5, 2)
    assert torch.equal(method.logit_correction()[:3], kept)
    again = make(ICaRL, head={"type": "prototype"})
    again.load_method_state(method.method_state())
    again.network.head.use_means = True  # its network's state says so
    assert torch.equal(again.logit_correction(), method.logit_correction())
    again.network.head.use_means = False
    assert again.logit_correction() is None  # the linear outputs of a running session are no cosines


def test_icarl_scores_by_the_mean_of_normalised_embeddings():
    method = make(ICaRL, head={"type": "prototype", "scale": 1.0})
    data = batches(0)
    trained = method.network(data[0]["inputs"]).logits_BC
    after_training(method, data)
    method.eval()
    with torch.no_grad():
        features = torch.cat([method.network(b["inputs"]).features_BK for b in data])
        features = torch.nn.functional.normalize(features, dim=1)
        targets = torch.cat([b["targets"] for b in data])
        mean = torch.nn.functional.normalize(features[targets[:, 1] == 1].sum(0), dim=0)
        logits = method.network(data[0]["inputs"]).logits_BC
    torch.testing.assert_close(logits[:, 1], features[:BATCH] @ mean)
    begin(method, 1)  # training and teacher go back to the linear outputs
    assert method.network(data[0]["inputs"]).logits_BC.shape == (BATCH, 5)
    assert not method.network.head.use_means
    assert not method.teacher.head.use_means
    assert trained.shape == (BATCH, 3)


def test_a_checkpoint_of_prototypes_rebuilds_its_scores():
    method = make(ICaRL, head={"type": "prototype"})
    after_training(method, batches(0))
    again = IncrementalNetwork(**method.network.spec)
    again.grow(3)
    again.double().load_state_dict(method.network.state_dict())
    image = batches(0)[0]["inputs"]
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(image).logits_BC, method.eval().network(image).logits_BC)


def test_bic_finds_scale_and_shift():
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 1, generator=generator, dtype=torch.double)
    targets = (torch.rand(4000, 1, generator=generator) < torch.sigmoid(true)).double()
    logits = torch.cat([torch.zeros_like(true), 2 * true + 3], 1)  # calibrated again by 1/2 and -3/2
    alpha, beta = fit_scale_and_shift(logits, torch.cat([targets, targets], 1), 1)
    assert alpha == pytest.approx(0.5, abs=0.06)
    assert beta == pytest.approx(-1.5, abs=0.2)
    assert fit_scale_and_shift(logits, torch.full((4000, 2), -1.0), 1) == (1.0, 0.0)


def test_bic_folds_the_correction_into_the_new_rows_only():
    method = make(BiC, held_out=2)
    begin(method, 1)
    old = method.network.head.linear.weight.detach().clone()
    after_training(method, batches(1))
    new = method.network.head.linear.weight.detach()
    assert method.correction["images"] >= 2
    torch.testing.assert_close(new[:3], old[:3])
    torch.testing.assert_close(new[3:], method.correction["alpha"] * old[3:])


def test_bic_trains_on_no_held_out_image():
    method = begin(make(BiC, held_out=2), 1)
    batch = batches(1)[0]
    losses = method(**batch, mode="loss")
    logits = method.network(batch["inputs"]).logits_BC
    kept = batch["rows"] % 2 != 0
    wanted = 2 / 5 * method.classify(logits[kept], batch["targets"][kept].clamp(min=0))
    assert losses["loss_cls"].item() == pytest.approx(wanted.item())


def test_derpp_pulls_replayed_images_to_their_stored_logits():
    method = make(DERpp, alpha=2.0)
    begin(method, 1)
    batch = batches(1)[0]
    replayed = batch["origins"] == 0
    rows = batch["rows"][replayed].numpy()
    with torch.no_grad():
        logits = method.network(batch["inputs"]).logits_BC
    method.remember(rows, logits[replayed, :3].float().numpy() + 1, rows)
    loss = method(**batch, mode="loss")["loss_logits"]
    assert loss.item() == pytest.approx(2 * 64 / BATCH * len(rows), rel=1e-5)  # a distance of one everywhere
    assert method.state_bytes()["logits"] == len(rows) * 3 * 4
    method.remember(np.array([], np.int64), np.zeros((0, 3)), rows[:1])  # the memory dropped the others
    assert list(method.stored) == [rows[0]]


def test_derpp_stores_the_logits_of_an_epoch_drawn_for_each_image():
    method = make(DERpp)
    low, high = SPLITS[1]
    context = SessionContext(1, low, high, 2, SPLITS[-1][1], 2.0, 1.0, BATCH, epochs=3)
    method.begin_session(context)
    method.double().train()
    first, second = batches(1)
    first["rows"][first["origins"] == 1] += 20
    new = [batch["rows"][batch["origins"] == 1].tolist() for batch in (first, second)]
    replayed = first["rows"][first["origins"] == 0].numpy()
    method.remember(replayed, np.zeros((len(replayed), low), np.float32), replayed)
    given, epochs = {}, {}
    for epoch in range(3):
        method.begin_epoch()
        before = set(method.entered)
        method.network.head.linear.bias.data.add_(1.0)  # as if it had learned
        with torch.no_grad():
            logits = method.network(first["inputs"]).logits_BC.float()
        method(**first, mode="loss")
        given[epoch] = dict(zip(first["rows"].tolist(), logits, strict=True))
        epochs |= dict.fromkeys(set(method.entered) - before, epoch)
        state = method.method_state()  # a run that is killed here goes on with it
        method.entered, method.epoch = {}, -1
        method.load_method_state(state)
    assert set(epochs) == set(new[0])
    assert len(set(epochs.values())) > 1
    stored = np.array([*new[0], *new[1]])
    method.remember(stored, np.full((len(stored), high), 7.0, np.float32), stored)
    for row, epoch in epochs.items():
        torch.testing.assert_close(method.stored[row], given[epoch][row])
    assert all((method.stored[row] == 7).all() for row in new[1])  # no step saw these
    assert method.method_state()["entered"]["rows"] == []


def test_rclp_halves_both_parts_and_keeps_the_middle_map_near_the_teachers():
    method = begin(make(RCLP, distill=3.0), 1)
    batch = batches(1)[0]
    losses = method(**batch, mode="loss")
    new, replayed = method.network(batch["inputs"]), batch["origins"] == 0
    targets = batch["targets"].clamp(min=0)
    for name, part in (("loss_cls", ~replayed), ("loss_replay", replayed)):
        wanted = method.classify(new.logits_BC[part].float(), targets[part]) / 2
        assert losses[name].item() == pytest.approx(wanted.item(), rel=1e-6)
    distance = (method.teacher_output(batch["inputs"]).maps[2] - new.maps[2]).square().mean()
    assert losses["loss_features"].item() == pytest.approx(3 * 64 * distance.item(), rel=1e-5)  # a sum over images
    (gradient,) = torch.autograd.grad(losses["loss_features"], [next(method.network.backbone.parameters())])
    assert gradient.abs().sum() > 0  # in the authors' release it has none
    assert method.needs_images
    assert "loss_features" not in begin(make(RCLP, distill=0.0), 1)(**batch, mode="loss")


def test_a_frozen_backbone_has_no_importance_and_keeps_its_weights():
    torch.manual_seed(3)
    method = begin(OEWC(IncrementalNetwork(BACKBONE, LINEAR, SIZE, frozen_backbone=True)), 0)
    method.measure_importance(batches(0))
    assert set(method.fisher) == {"head.linear.weight", "head.linear.bias"}
    again = begin(Finetune(IncrementalNetwork(BACKBONE, LINEAR, SIZE, frozen_backbone=True), restart=True), 0)
    before = {name: value.clone() for name, value in again.network.state_dict().items()}
    begin(again, 1)
    after = again.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("backbone"))
    assert not torch.equal(after["head.linear.weight"][:3], before["head.linear.weight"])


def test_rclp_on_a_frozen_backbone_needs_no_images_and_has_no_distance():
    method = RCLP(IncrementalNetwork(BACKBONE, LINEAR, SIZE, frozen_backbone=True), distill=3.0)
    assert not method.needs_images
    assert not method.uses_teacher
    method = begin(begin(method, 0), 1)
    assert "loss_features" not in method(**batches(1)[0], mode="loss")


def test_edge_correlation_sees_shape_and_not_size():
    points = torch.randn(5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.double, generator=torch.Generator().manual_seed(1)))[0]
    assert edge_correlation(points, 7 * points @ rotation).item() == pytest.approx(1)
    assert edge_correlation(points, torch.randn(5, 3, dtype=torch.double)).item() < 0.99


def test_agcn_fills_the_correlation_matrix_by_counting():
    method = make(AGCN, head={"type": "graph", "node_channels": 4, "hidden_channels": 4})
    targets = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.double)
    batch = {"inputs": torch.rand(3, 3, SIZE, SIZE, dtype=torch.double), "targets": targets}
    before_training(method, [batch])
    # P(i | j) = N_ij / N_j with N = (2, 2, 1), N_01 = 1, N_12 = 1
    wanted = torch.tensor([[1, 0.5, 0], [0.5, 1, 1], [0, 0.5, 1]], dtype=torch.double)
    torch.testing.assert_close(method.network.head.correlation, wanted)
    begin(method, 1)
    new = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]], dtype=torch.double)
    inputs = batch["inputs"][:2]
    before_training(method, [{"inputs": inputs, "targets": new}])
    soft = torch.sigmoid(method.teacher_output(inputs).logits_BC)
    found = method.network.head.correlation
    torch.testing.assert_close(found[:3, :3], wanted)  # the old block stays
    torch.testing.assert_close(found[:3, 3], soft.sum(0) / 2)
    torch.testing.assert_close(found[4, :3], soft[1] / soft.sum(0))
    assert found[4, 3].item() == pytest.approx(0.5)
    weights, old = method.network.head.class_weights(), method.teacher.head.class_weights()
    torch.testing.assert_close(weights[:3], old)  # a graph that grows moves no old class before the first step
    assert not torch.allclose(weights[:3] - method.network.head.offset[:3], old, atol=1e-3)
    with pytest.raises(ValueError, match="graph"):
        make(AGCN)
