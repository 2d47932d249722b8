"""DKT against numbers of the authors' code (fixtures/dkt_parity.md)."""

import functools
import math

import numpy as np
import pytest
import torch
from fixture_sets import one_hot, over
from method_calls import begin_finetuning, losses_of
from transformer_fixtures import GRADIENTS, LOGITS, LOSSES, SETS, normal

from mlcil.engine.optim import decay_groups
from mlcil.interop.official import is_unused, to_transformer
from mlcil.losses.distillation import cosine_matrix
from mlcil.losses.logits import mean_bce, softened_kl
from mlcil.methods import DKT
from mlcil.methods.base import BalancedFinetuning
from mlcil.methods.dkt import cluster_separation, relations

# In training mode the batch norms over a handful of single-token maps amplify rounding: over forty seeds our float32
# outputs are up to 7e-5 from our float64 ones, and the stored float32 outputs are as far. Evaluation, losses and
# gradients keep the notes' bars.
TRAINING = 2e-4
each = functools.partial(over, SETS["dkt"])


def stages(Z):
    return Z.stages("small/t")


def student(Z, sessions):
    return Z.network(f"small/t{sessions}", Z.seed + (10 + sessions if sessions > 1 else 1))  # the first is stage 1


def teacher(Z, sessions):
    return Z.network(f"small/t{sessions - 1}", Z.seed + sessions - 1) if sessions > 1 else None


def stage_of(names):
    """Sessions of the model with these names."""
    return 1 + max(int(name.split(".")[1]) for name in names if name.startswith("task_tokens."))


def loss_tuple(losses, balance):
    """Ours under the official entries: [(1 - l) BCE, (1 - l) BCE + l KL, 0, CS], NaN where absent."""
    cls, kd, cs = (losses[k].item() if k in losses else math.nan for k in ("loss_cls", "loss_kd", "loss_cs"))
    if math.isnan(kd):
        return [cls, math.nan, math.nan, math.nan]
    assert balance > 0
    return [cls / 2, cls / 2 + kd, 0.0, cs]


def check_step(Z, method, prefix, x, y):
    """Losses, outputs, gradients and batch-norm buffers of one training step."""
    classes = sum(method.network.classes_per_session)
    buffers_before = {k: v.clone() for k, v in method.network.named_buffers()}
    with torch.no_grad():
        output = method.network(x)
    np.testing.assert_allclose(output.logits_BC, Z[f"{prefix}/train_logits"], rtol=0, atol=TRAINING)
    np.testing.assert_allclose(output.features_BK, Z[f"{prefix}/train_tokens"], rtol=0, atol=TRAINING)
    official = to_transformer(dict(method.network.state_dict()), "dkt")
    names = Z.meta[f"{prefix}/bn_buffer_names"]
    for name, norm in zip(names, Z[f"{prefix}/bn_buffer_l2_after"], strict=True):
        if not is_unused(name, "dkt"):
            np.testing.assert_allclose(official[name].double().norm().item(), norm, rtol=1e-5, err_msg=name)
    for name, buffer in method.network.named_buffers():
        buffer.copy_(buffers_before[name])

    losses = losses_of(method, x, one_hot(y, classes))
    total = sum(losses.values())
    total.backward()
    context = method.context
    expected = Z[f"{prefix}/loss_tuple"]
    if method.teacher is None:
        np.testing.assert_allclose(losses["loss_cls"].item(), Z[f"{prefix}/bce_raw"], rtol=0, atol=LOSSES)
    else:
        old = method.teacher_output(x)
        np.testing.assert_allclose(old.logits_BC, Z[f"{prefix}/teacher_logits"], rtol=0, atol=LOGITS)
        np.testing.assert_allclose(old.features_BK, Z[f"{prefix}/teacher_tokens"], rtol=0, atol=LOGITS)
        balance = float(Z[f"{prefix}/lambda"])
        assert context.low / context.high == pytest.approx(balance)
        np.testing.assert_allclose(losses["loss_kd"].item() / balance, Z[f"{prefix}/kl_mean"], rtol=0, atol=LOSSES)
        bce = losses["loss_cls"].item() / (2 * (1 - balance))
        np.testing.assert_allclose(bce, Z[f"{prefix}/bce_raw"], rtol=0, atol=LOSSES)
        np.testing.assert_allclose(loss_tuple(losses, balance), expected, rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), Z[f"{prefix}/loss_total"], rtol=0, atol=LOSSES)
    Z.check_gradients(method.network, prefix)


@each("sessions", stages)
def test_generator(Z, sessions):
    weights = Z.weights(f"small/t{sessions}", Z.seed + sessions)
    names = Z.meta[f"weights_sum/small_t{sessions}"]
    found = [weights[name].double().sum().item() for name in names]
    np.testing.assert_allclose(found, Z[f"weights_sum/small_t{sessions}"], rtol=1e-9, atol=1e-12)


@each("sessions", stages)
def test_blocks_in_evaluation(Z, sessions):
    network = Z.network(f"small/t{sessions}", Z.seed + sessions).eval()
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.update({name: output})

    network.backbone.stem.register_forward_hook(keep("stem"))
    for index, block in enumerate(network.backbone.blocks):
        block.register_forward_hook(keep(f"sab{index}"))
    network.head.block.register_forward_hook(keep("tab"))
    with torch.no_grad():
        output = network(Z.tensor("input/small"))
    seen["patch_embed"] = seen.pop("stem").flatten(2).transpose(1, 2)
    seen["tab"] = seen["tab"][:, None]
    seen.update(logits=output.logits_BC, tokens=output.features_BK)
    stored = {key.split("/")[-1] for key in Z.keys(f"eval_small/t{sessions}/")}
    assert stored == set(seen)
    for name in stored:
        np.testing.assert_allclose(seen[name], Z[f"eval_small/t{sessions}/{name}"], rtol=0, atol=LOGITS, err_msg=name)


@each()
def test_full_width_in_evaluation(Z):
    network = Z.network("full", Z.seed + 50).eval()
    assert network.classes_per_session == Z.params["full_incs"]
    with torch.no_grad():
        output = network(Z.tensor("input/full"))
    np.testing.assert_allclose(output.logits_BC, Z["eval_full/logits"], rtol=0, atol=LOGITS)
    np.testing.assert_allclose(output.features_BK, Z["eval_full/tokens"], rtol=0, atol=LOGITS)


@each()
def test_imagenet_stem(Z):
    network = Z.network("imagenet_small", Z.seed + 70).eval()
    x = torch.from_numpy(normal("input/imagenet", Z.imagenet_input, Z.seed))
    with torch.no_grad():
        patches = network.backbone.stem(x).flatten(2).transpose(1, 2)
        output = network(x)
    first = Z["imagenet_small/patch_embed_first8"]
    np.testing.assert_array_equal(patches.shape, Z["imagenet_small/patch_embed_shape"])
    np.testing.assert_allclose(patches[:, : first.shape[1]], first, rtol=0, atol=LOGITS)
    np.testing.assert_allclose(output.logits_BC, Z["imagenet_small/logits"], rtol=0, atol=LOGITS)
    np.testing.assert_allclose(output.features_BK, Z["imagenet_small/tokens"], rtol=0, atol=LOGITS)


@each("sessions", stages)
def test_training_step(Z, sessions):
    method = Z.method_with(DKT(student(Z, sessions)), teacher(Z, sessions))
    prefix = f"train_small/t{sessions}"
    check_step(Z, method, prefix, Z.tensor(f"{prefix}/x"), Z.tensor(f"{prefix}/y"))


@each()
def test_full_width_training_step(Z):
    method = Z.method_with(DKT(Z.network("full_t2", Z.seed + 61)), Z.first_session("full_t2", Z.seed + 60))
    check_step(Z, method, "train_full", Z.tensor("train_full/x"), Z.tensor("train_full/y"))


@each()
def test_finetuning_step(Z):
    last = stages(Z)[-1]
    method = Z.method_with(DKT(student(Z, last), finetuning={}), teacher(Z, last))
    begin_finetuning(method)
    check_step(Z, method, "ft_small", Z.tensor("ft_small/x"), Z.tensor("ft_small/y"))


@each()
def test_frozen_parameters(Z):
    method = Z.method_with(DKT(Z.network(f"small/t{stage_of(Z.meta['freeze_ft/frozen'])}", Z.seed)))
    assert Z.frozen(method.network) == Z.used(Z.meta["freeze_task/frozen"])
    begin_finetuning(method)
    assert Z.frozen(method.network) == Z.used(Z.meta["freeze_ft/frozen"])


@each()
def test_growth(Z):
    known = stage_of(Z.meta["growth/changed"]) - 1
    network = Z.network(f"small/t{known}", Z.seed + 80)
    before = {k: v.clone() for k, v in to_transformer(dict(network.state_dict()), "dkt").items()}
    network.grow(Z.params["incs"][known])
    after = to_transformer(dict(network.state_dict()), "dkt")
    changed = {
        k for k in after if k not in before or before[k].shape != after[k].shape or (before[k] != after[k]).any()
    }
    assert changed == set(Z.meta["growth/changed"])
    np.testing.assert_array_equal(before["head.0.head.weight"], Z["growth/head0_weight_before"])
    np.testing.assert_array_equal(before["head.1.head.weight"], Z["growth/head1_weight_before"])
    np.testing.assert_array_equal(after["head.0.head.weight"], Z["growth/head0_weight_after"])
    np.testing.assert_array_equal(after["head.0.norm.weight"], Z["growth/head0_norm_weight_after"])
    np.testing.assert_array_equal(after["head.1.norm.weight"], Z["growth/head1_norm_weight_after"])
    kept = torch.equal(after["head.0.head.bias"], torch.cat([before["head.0.head.bias"], before["head.1.head.bias"]]))
    assert kept == bool(Z["growth/head0_bias_equals_concat"])
    bound = before["head.0.head.weight"].shape[1] ** -0.5
    assert (after["head.0.head.bias"].abs() <= bound).all()


@each()
def test_optimiser_groups(Z):
    groups = Z.meta["optimizer/groups"]
    sessions = stage_of([name for group in groups for name in group["names"]])
    method = Z.method_with(DKT(Z.network(f"small/t{sessions}", Z.seed)))
    for ours, group in zip(decay_groups(method, 1e-6), groups, strict=True):
        found = {id(p) for p in ours["params"]}
        named = {k: p for k, p in method.network.named_parameters() if id(p) in found}
        assert set(Z.official(named, group["names"])) == Z.used(group["names"])
        assert ours["weight_decay"] == group["weight_decay"]


@each()
def test_four_optimiser_steps(Z):
    network = student(Z, 2)
    method = Z.method_with(DKT(network), Z.network("small/t1", Z.seed + 1))
    group = Z.meta["optimizer/groups"][0]
    optimizer = torch.optim.AdamW(decay_groups(method, 1e-6), lr=group["lr"], betas=group["betas"], eps=group["eps"])
    classes, batch = sum(network.classes_per_session), Z.params["Bt"]
    size = Z["input/small"].shape[1:]
    for i, expected in enumerate(Z["opt_traj/total_loss"]):
        x = torch.from_numpy(normal(f"input/opt_{i}", (batch, *size), Z.seed))
        labels = (torch.arange(batch) * (i + 1)) % classes
        total = sum(losses_of(method, x, one_hot(labels, classes)).values())
        np.testing.assert_allclose(total.item(), expected, rtol=0, atol=2e-4, err_msg=f"step {i}")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


@each()
def test_relations_and_similarities(Z):
    labels, low = Z.tensor("loss/labels"), Z["loss/logits_teacher"].shape[1]
    np.testing.assert_array_equal(relations(labels, low), Z["loss/cs_relation"])
    similarity = cosine_matrix(Z.tensor("loss/feat_student"), Z.tensor("loss/feat_teacher"))
    np.testing.assert_allclose(similarity, Z["loss/sim_matrix"], rtol=0, atol=LOSSES)


@each("case", lambda Z: Z.parts("loss/tau"))
def test_losses_alone(Z, case):
    old, new = Z.tensor("loss/logits_teacher"), Z.tensor("loss/logits_student").requires_grad_()
    feature = Z.tensor("loss/feat_student").requires_grad_()
    labels = Z.tensor("loss/labels")
    low, high = old.shape[1], new.shape[1]
    balance = low / high
    bce = mean_bce(new, one_hot(labels, high))
    kl = softened_kl(old, new, float(case.removeprefix("tau")))
    cs = DKT.__init__.__defaults__[0] * cluster_separation(Z.tensor("loss/feat_teacher"), feature, labels, low)
    np.testing.assert_allclose(bce.item(), Z["loss/bce"], rtol=0, atol=LOSSES)
    total = 2 * (1 - balance) * bce + balance * kl + cs
    found = [(1 - balance) * bce.item(), ((1 - balance) * bce + balance * kl).item(), 0.0, cs.item()]
    np.testing.assert_allclose(found, Z[f"loss/{case}/tuple"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), Z[f"loss/{case}/total"], rtol=0, atol=LOSSES)
    total.backward()
    for ours, key in ((new.grad, "grad_logits"), (feature.grad, "grad_feat")):
        np.testing.assert_allclose(ours, Z[f"loss/{case}/{key}"], rtol=GRADIENTS, atol=1e-7)


def test_epochs_of_fine_tuning():
    phase = BalancedFinetuning(early_epochs=1, early_sessions=3)
    assert [phase.epochs_of(t) for t in range(1, 5)] == [1, 1, 10, 10]
