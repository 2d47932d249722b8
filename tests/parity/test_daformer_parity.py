"""DAFormer against numbers of the authors' code, and of the non-official parts' definitions (daformer_parity.md)."""

import functools
import math

import numpy as np
import pytest
import torch
from fixture_sets import one_hot, over
from method_calls import begin_finetuning, losses_of
from transformer_fixtures import GRADIENTS, LOGITS, LOSSES, NOTHING, SETS

from mlcil.engine.optim import SharpnessAwareOptimWrapper, decay_groups, sharpness_offsets
from mlcil.interop.official import transformer_sessions
from mlcil.losses.distillation import cosine_matrix
from mlcil.losses.logits import mean_bce, softened_kl
from mlcil.methods import DAFormer
from mlcil.methods.daformer import divergence_targets, mix_up, mixing_weight, nearest_neighbours, neighbour_invariance
from mlcil.models.heads.daformer import DualAttention

EDITIONS = {"M": "M", "S": "nonofficial_S"}
each = functools.partial(over, SETS["daformer"])


def stages(Z):
    return Z.stages("M/t")


def stage(Z, edition, sessions, seed):
    return Z.network(f"{edition}/t{sessions}", seed, edition=edition)


def method_of(Z, edition, sessions):
    """Student and teacher of a training step."""
    first = sessions == 1
    student = stage(Z, edition, sessions, Z.seed + (1 if first else 10 + sessions))
    teacher = None if first else stage(Z, edition, sessions - 1, Z.seed + sessions - 1)
    return Z.method_with(DAFormer(student), teacher)


def loss_tuple(losses):
    """Ours under the official entries: [(1 - l) L, l KL, 0.1 L_div], NaN where absent."""
    return [losses[k].item() if k in losses else math.nan for k in ("loss_cls", "loss_kd", "loss_div")]


def check_step(Z, method, prefix, x, targets):
    """Outputs, losses and gradients of one step; the gradients stay in the network."""
    with torch.no_grad():
        output = method.network(x)
    np.testing.assert_allclose(output.logits_BC, Z[f"{prefix}/logits"], rtol=0, atol=LOGITS)
    if method.teacher is not None:
        with torch.no_grad():
            divergence = method.network.head.divergence_logits(output.tokens_BSD)
        np.testing.assert_allclose(divergence, Z[f"{prefix}/div"], rtol=0, atol=LOGITS)
        old = method.teacher_output(x)
        np.testing.assert_allclose(old.logits_BC, Z[f"{prefix}/teacher_logits"], rtol=0, atol=LOGITS)
    losses = losses_of(method, x, targets)
    total = sum(losses.values())
    total.backward()
    balance = method.context.low / method.context.high if method.teacher is not None else 0.0
    raw = losses["loss_cls"].item() / (1 - balance)
    np.testing.assert_allclose(raw, Z[f"{prefix}/clf_raw"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(loss_tuple(losses), Z[f"{prefix}/loss_tuple"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), Z[f"{prefix}/loss_total"], rtol=0, atol=LOSSES)
    Z.check_gradients(method.network, prefix)


def mixed_batch(Z, sessions):
    """The mixed batch of a step, compared with what is stored of it."""
    prefix = f"M/train/t{sessions}"
    classes = sum(transformer_sessions(Z.weights(f"M/t{sessions}", Z.seed), "daformer"))
    x, y = Z.tensor(f"{prefix}/x"), Z.tensor(f"{prefix}/y")
    x, targets = mix_up(x, one_hot(y, classes), Z.params["lam"], Z.told(r"smoothing ([\d.]+)")[0])
    first = Z[f"{prefix}/mix_x_first"]
    np.testing.assert_allclose(x[: len(first)], first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(x.double().sum().item(), Z[f"{prefix}/mix_x_sum"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(targets, Z[f"{prefix}/mix_target"], rtol=0, atol=1e-6)
    return x, targets


@each("sessions", stages)
def test_generator(Z, sessions):
    weights = Z.weights(f"M/t{sessions}", Z.seed + sessions)
    found = [weights[name].double().sum().item() for name in Z.meta[f"weights_sum/M_t{sessions}"]]
    np.testing.assert_allclose(found, Z[f"weights_sum/M_t{sessions}"], rtol=1e-9, atol=1e-12)


@each("sessions", stages)
def test_blocks_in_evaluation(Z, sessions):
    network = stage(Z, "M", sessions, Z.seed + sessions).eval()
    seen = {}
    for index, block in enumerate(network.backbone.blocks):
        block.register_forward_hook(lambda m, i, o, index=index: seen.update({f"sab{index}": o}))
    with torch.no_grad():
        output = network(Z.tensor("input/small"))
        stem = network.backbone.stem(Z.tensor("input/small")).flatten(2).transpose(1, 2)
        # the convolution alone, or with the positional embedding: the fixture's hook decides
        stored = Z[f"M/eval/t{sessions}/patch_embed"]
        if np.abs(stem.numpy() - stored).max() > LOGITS:
            stem = stem + network.backbone.pos_embed
        seen.update(patch_embed=stem, logits=output.logits_BC, outs=output.tokens_BSD.transpose(0, 1))
        if sessions > 1:
            seen["div"] = network.head.divergence_logits(output.tokens_BSD)
        last = seen[f"sab{len(network.backbone.blocks) - 1}"]
        seen.update(dual_blocks(network.head, last))
    names = {key.split("/")[-1] for key in Z.keys(f"M/eval/t{sessions}/")}
    assert names == set(seen)
    for name in names:
        expected = Z[f"M/eval/t{sessions}/{name}"]
        np.testing.assert_allclose(seen[name][: len(expected)], expected, rtol=0, atol=LOGITS, err_msg=name)


def dual_blocks(head, x):
    """Attention maps and the block's tokens before the mean, key by key, on the head's parameters."""
    block, found = head.block, {}
    q, k, v = block.attention.split(block.norm1(x))
    internal = DualAttention.internal_map(q, k)
    for index, key in enumerate(head.keys):
        external = DualAttention.external_map(q, key)
        y = x + DualAttention.merge(internal @ v + external @ v)
        found[f"attn_internal_key{index}"], found[f"attn_external_key{index}"] = internal, external
        found[f"dual_last_key{index}"] = y + block.mlp(block.norm2(y))
    return found


@pytest.mark.parametrize("edition", EDITIONS)
@each("sessions", stages)
def test_evaluation(Z, sessions, edition):
    network = stage(Z, edition, sessions, Z.seed + sessions).eval()
    with torch.no_grad():
        output = network(Z.tensor("input/small"))
    check_outputs(Z, network, output, f"{EDITIONS[edition]}/eval/t{sessions}", edition)


@each()
def test_full_width_in_evaluation(Z):
    network = Z.network("M/full", Z.seed + 50).eval()
    assert network.classes_per_session == Z.params["full_incs"]
    with torch.no_grad():
        output = network(Z.tensor("input/full"))
    check_outputs(Z, network, output, "M/eval_full", "M")


def check_outputs(Z, network, output, prefix, edition):
    np.testing.assert_allclose(output.logits_BC, Z[f"{prefix}/logits"], rtol=0, atol=LOGITS)
    outs = Z[f"{prefix}/outs"]  # (task, batch, D); the shared embedding is repeated
    tokens = output.tokens_BSD.transpose(0, 1)
    assert len(tokens) == (1 if edition == "S" else len(outs))
    np.testing.assert_allclose(tokens.expand(*outs.shape), outs, rtol=0, atol=LOGITS)
    if f"{prefix}/div" in Z:
        with torch.no_grad():
            divergence = network.head.divergence_logits(output.tokens_BSD)
        np.testing.assert_allclose(divergence, Z[f"{prefix}/div"], rtol=0, atol=LOGITS)


@each("sessions", stages)
def test_training_step(Z, sessions):
    method = method_of(Z, "M", sessions)
    y = Z.tensor(f"M/train/t{sessions}/y")
    targets = one_hot(y, method.context.high)
    check_step(Z, method, f"M/train/t{sessions}/hard", Z.tensor(f"M/train/t{sessions}/x"), targets)


@each()
def test_full_width_training_step(Z):
    student = Z.network("M/full_t2", Z.seed + 61)
    teacher = Z.first_session("M/full_t2", Z.seed + 60)
    method = Z.method_with(DAFormer(student), teacher)
    targets = one_hot(Z.tensor("M/train_full/y"), method.context.high)
    check_step(Z, method, "M/train_full/hard", Z.tensor("M/train_full/x"), targets)


@each(
    "key", lambda Z: [key.removesuffix("/logits") for key in Z.keys("nonofficial_S/train/") if key.endswith("/logits")]
)
def test_shared_key_training_step(Z, key):
    sessions = int(key.split("/")[2].removeprefix("t"))
    method = method_of(Z, "S", sessions)
    y = Z.tensor(f"M/train/t{sessions}/y")
    check_step(Z, method, key, Z.tensor(f"M/train/t{sessions}/x"), one_hot(y, method.context.high))


@each("sessions", lambda Z: stages(Z)[1:])
def test_mixed_training_step_with_sharpness(Z, sessions):
    method, prefix = method_of(Z, "M", sessions), f"M/train/t{sessions}/mix"
    rho = Z.told(r"ρ=([\d.]+)")[0]
    network, names = method.network, Z.meta[f"M/train/t{sessions}/mix/grad_names"]
    x, targets = mixed_batch(Z, sessions)
    check_step(Z, method, prefix, x, targets)
    trained = {name: p for name, p in network.named_parameters() if p.grad is not None}
    norm = torch.stack([(p.detach().abs() * p.grad).norm() for p in trained.values()]).norm()
    np.testing.assert_allclose(norm.item(), Z[f"{prefix}/sam_grad_norm"], rtol=GRADIENTS)
    offsets = dict(zip(trained, sharpness_offsets(trained.values(), rho), strict=True))
    moved = {name: torch.zeros(1) for name in names} | Z.official(offsets, names)
    np.testing.assert_allclose(
        [moved[name].double().norm().item() for name in names], Z[f"{prefix}/sam_ew_l2"], rtol=GRADIENTS, atol=NOTHING
    )

    # the engine's wrapper on the same batch: up, second pass, back and step
    network.zero_grad()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(decay_groups(method, 0.0), lr=0.0)
    wrapper = SharpnessAwareOptimWrapper(rho=rho, optimizer=optimizer, precision="fp32")
    assert wrapper.passes == 2
    wrapper.update_params(sum(losses_of(method, x, targets).values()))
    second = losses_of(method, x, targets)
    np.testing.assert_allclose(loss_tuple(second), Z[f"{prefix}/sam_loss_tuple2"], rtol=0, atol=LOSSES)
    total = sum(second.values())
    np.testing.assert_allclose(total.item(), Z[f"{prefix}/sam_total2"], rtol=0, atol=LOSSES)
    wrapper.zero_grad = lambda **_: None  # keep the second gradient for the comparison
    wrapper.update_params(total)
    Z.check_norms(Z.gradients(network, names), names, Z[f"{prefix}/sam_grad_l2_2"])
    restored = max((p - start[name]).abs().max().item() for name, p in network.named_parameters())
    assert restored <= Z[f"{prefix}/sam_restored_maxdiff"]


@each()
def test_finetuning_step(Z):
    method = method_of(Z, "M", stages(Z)[-1])
    begin_finetuning(method)
    check_step(Z, method, "M/ft", *mixed_batch(Z, stages(Z)[-1]))


@each()
def test_frozen_parameters(Z):
    last = stages(Z)[-1]
    method = Z.method_with(DAFormer(stage(Z, "M", last, Z.seed)))
    assert Z.frozen(method.network) == set(Z.meta["freeze_task/frozen"])
    begin_finetuning(method)
    # the divergence classifier gets no gradient in fine-tuning; here it is frozen, for data-parallel training
    divergence = {name for name in Z.shapes[f"M/t{last}"] if name.startswith("head_div.")}
    assert Z.frozen(method.network) == set(Z.meta["freeze_ft/frozen"]) | divergence


@each()
def test_shared_key_is_never_frozen_in_a_session(Z):
    last = stages(Z)[-1]
    method = Z.method_with(DAFormer(stage(Z, "S", last, Z.seed)))
    heads = {name for name in Z.shapes[f"S/t{last}"] if name.startswith("head.")}
    newest = {name for name in heads if name.startswith(f"head.{last - 1}.")}
    assert Z.frozen(method.network) == heads - newest


@each()
def test_optimiser_groups(Z):
    method = Z.method_with(DAFormer(stage(Z, "M", stages(Z)[-1], Z.seed)))
    for ours, group in zip(decay_groups(method, 1e-6), Z.meta["optimizer/groups"], strict=True):
        found = {id(p) for p in ours["params"]}
        named = {k: p for k, p in method.network.named_parameters() if id(p) in found}
        assert set(Z.official(named, group["names"])) == Z.used(group["names"])
        assert ours["weight_decay"] == group["weight_decay"]


@each()
def test_growth(Z):
    last = stages(Z)[-1]
    network = stage(Z, "M", last - 1, Z.seed)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.grow(Z.params["incs"][last - 1])
    key = network.head.keys[-1]
    assert key.weight.abs().max() == Z["growth/new_key_weight_absmax"]
    assert key.bias.abs().max() == Z["growth/new_key_bias_absmax"]
    np.testing.assert_array_equal(network.head.divergence.linear.weight.shape, Z["growth/head_div_shape"])
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.startswith("head.divergence."))


@pytest.mark.parametrize("kind", ["hard", "mix"])
@each("case", lambda Z: Z.parts("loss/tau"))
def test_losses_alone(Z, case, kind):
    old, new = Z.tensor("loss/logits_teacher"), Z.tensor("loss/logits_student").requires_grad_()
    divergence = Z.tensor("loss/logits_div").requires_grad_()
    low, high = old.shape[1], new.shape[1]
    balance = low / high
    targets = one_hot(Z.tensor("loss/labels"), high) if kind == "hard" else Z.tensor(f"loss/{case}/mix_target")
    terms = [
        (1 - balance) * mean_bce(new, targets),
        balance * softened_kl(old, new, float(case.removeprefix("tau"))),
        DAFormer.__init__.__defaults__[1] * mean_bce(divergence, divergence_targets(targets, low)),
    ]
    total = sum(terms)
    np.testing.assert_allclose([t.item() for t in terms], Z[f"loss/{case}/{kind}/tuple"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), Z[f"loss/{case}/{kind}/total"], rtol=0, atol=LOSSES)
    total.backward()
    for ours, name in ((new.grad, "grad_logits"), (divergence.grad, "grad_div")):
        np.testing.assert_allclose(ours, Z[f"loss/{case}/{kind}/{name}"], rtol=GRADIENTS, atol=1e-7)


@each()
def test_mixing_weights(Z):
    rng = np.random.RandomState(int(Z["mixup/numpy_seed"]))
    found = [mixing_weight(rng, 0.8) for _ in Z["mixup/lambda_stream"]]  # alpha: daformer_parity.md's release
    np.testing.assert_allclose(found, Z["mixup/lambda_stream"], rtol=1e-12)


@each("case", lambda Z: Z.parts("nonofficial_knn/K"))
def test_neighbour_invariance(Z, case):
    count, temperature = case.removeprefix("K").split("_tau")
    old, new = Z.tensor("nonofficial_knn/feat_old"), Z.tensor("nonofficial_knn/feat_new").requires_grad_()
    index = nearest_neighbours(cosine_matrix(old, old), int(count))
    np.testing.assert_array_equal(index, Z[f"nonofficial_knn/{case}/idx"])
    loss = neighbour_invariance(old, new, int(count), float(temperature))
    loss.backward()
    np.testing.assert_allclose(loss.item(), Z[f"nonofficial_knn/{case}/loss"], rtol=0, atol=LOSSES)
    expected = Z[f"nonofficial_knn/{case}/grad_new"]
    np.testing.assert_allclose(
        new.grad, expected, rtol=GRADIENTS, atol=max(GRADIENTS * np.abs(expected).max(), NOTHING)
    )
