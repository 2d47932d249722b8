"""DAFormer against numbers of the authors' code, and of the non-official parts' definitions (daformer_parity.md)."""

import math

import numpy as np
import pytest
import torch
from transformer_fixtures import GRADIENTS, LOGITS, LOSSES, NOTHING, fixture, one_hot

from mlcil.engine.mixing import mix_up, mixing_weight
from mlcil.engine.optim import SharpnessAwareOptimWrapper, decay_groups, sharpness_offsets
from mlcil.interop.official import is_unused, to_transformer, transformer_sessions
from mlcil.losses.distillation import cosine_matrix
from mlcil.losses.logits import mean_bce, softened_kl
from mlcil.methods import DAFormer
from mlcil.methods.daformer import divergence_targets, nearest_neighbours, neighbour_invariance
from mlcil.models.heads.daformer import DualAttention

F = fixture("daformer")
STAGES = sorted(int(name.removeprefix("M/t")) for name in F.shapes if name.startswith("M/t"))
LAST = STAGES[-1]
EDITIONS = {"M": "M", "S": "nonofficial_S"}
SMOOTHING, SAM_RHO = 0.1, 3.0  # daformer_parity.md: "smoothing 0.1", "adaptive SAM (rho=3)"


def stage(edition, sessions, seed):
    return F.network(f"{edition}/t{sessions}", seed, edition=edition)


def method_of(edition, sessions):
    """Student and teacher of a training step."""
    first = sessions == 1
    student = stage(edition, sessions, F.seed + (1 if first else 10 + sessions))
    teacher = None if first else stage(edition, sessions - 1, F.seed + sessions - 1)
    return F.method_with(DAFormer(student), teacher)


def loss_tuple(losses):
    """Ours under the official entries: [(1 - l) L, l KL, 0.1 L_div], NaN where absent."""
    return [losses[k].item() if k in losses else math.nan for k in ("loss_cls", "loss_kd", "loss_div")]


def check_step(method, prefix, x, targets):
    """Outputs, losses and gradients of one step; the gradients stay in the network."""
    with torch.no_grad():
        output = method.network(x)
    np.testing.assert_allclose(output.logits_BC, F[f"{prefix}/logits"], rtol=0, atol=LOGITS)
    if method.teacher is not None:
        with torch.no_grad():
            divergence = method.network.head.divergence_logits(output.tokens_BSD)
        np.testing.assert_allclose(divergence, F[f"{prefix}/div"], rtol=0, atol=LOGITS)
        old = method.teacher_output(x)
        np.testing.assert_allclose(old.logits_BC, F[f"{prefix}/teacher_logits"], rtol=0, atol=LOGITS)
    losses = method(x, targets, mode="loss")
    total = sum(losses.values())
    total.backward()
    balance = method.context.low / method.context.high if method.teacher is not None else 0.0
    raw = losses["loss_cls"].item() / (1 - balance)
    np.testing.assert_allclose(raw, F[f"{prefix}/clf_raw"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(loss_tuple(losses), F[f"{prefix}/loss_tuple"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), F[f"{prefix}/loss_total"], rtol=0, atol=LOSSES)
    F.check_gradients(method.network, prefix)


def mixed_batch(sessions):
    """The mixed batch of a step, compared with what is stored of it."""
    prefix = f"M/train/t{sessions}"
    classes = sum(transformer_sessions(F.weights(f"M/t{sessions}", F.seed), "daformer"))
    x, y = F.tensor(f"{prefix}/x"), F.tensor(f"{prefix}/y")
    x, targets = mix_up(x, one_hot(y, classes), F.params["lam"], SMOOTHING)
    first = F[f"{prefix}/mix_x_first"]
    np.testing.assert_allclose(x[: len(first)], first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(x.double().sum().item(), F[f"{prefix}/mix_x_sum"], rtol=0, atol=1e-3)
    np.testing.assert_allclose(targets, F[f"{prefix}/mix_target"], rtol=0, atol=1e-6)
    return x, targets


@pytest.mark.parametrize("sessions", STAGES)
def test_generator(sessions):
    weights = F.weights(f"M/t{sessions}", F.seed + sessions)
    found = [weights[name].double().sum().item() for name in F.meta[f"weights_sum/M_t{sessions}"]]
    np.testing.assert_allclose(found, F[f"weights_sum/M_t{sessions}"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sessions", STAGES)
def test_blocks_in_evaluation(sessions):
    network = stage("M", sessions, F.seed + sessions).eval()
    seen = {}
    for index, block in enumerate(network.backbone.blocks):
        block.register_forward_hook(lambda m, i, o, index=index: seen.update({f"sab{index}": o}))
    with torch.no_grad():
        output = network(F.tensor("input/small"))
        stem = network.backbone.stem(F.tensor("input/small")).flatten(2).transpose(1, 2)
        # the convolution alone, or with the positional embedding: the fixture's hook decides
        stored = F[f"M/eval/t{sessions}/patch_embed"]
        if np.abs(stem.numpy() - stored).max() > LOGITS:
            stem = stem + network.backbone.pos_embed
        seen.update(patch_embed=stem, logits=output.logits_BC, outs=output.tokens_BSD.transpose(0, 1))
        if sessions > 1:
            seen["div"] = network.head.divergence_logits(output.tokens_BSD)
        last = seen[f"sab{len(network.backbone.blocks) - 1}"]
        seen.update(dual_blocks(network.head, last))
    names = {key.split("/")[-1] for key in F.keys(f"M/eval/t{sessions}/")}
    assert names == set(seen)
    for name in names:
        expected = F[f"M/eval/t{sessions}/{name}"]
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
@pytest.mark.parametrize("sessions", STAGES)
def test_evaluation(sessions, edition):
    network = stage(edition, sessions, F.seed + sessions).eval()
    with torch.no_grad():
        output = network(F.tensor("input/small"))
    check_outputs(network, output, f"{EDITIONS[edition]}/eval/t{sessions}", edition)


def test_full_width_in_evaluation():
    network = F.network("M/full", F.seed + 50).eval()
    assert network.classes_per_session == F.params["full_incs"]
    with torch.no_grad():
        output = network(F.tensor("input/full"))
    check_outputs(network, output, "M/eval_full", "M")


def check_outputs(network, output, prefix, edition):
    np.testing.assert_allclose(output.logits_BC, F[f"{prefix}/logits"], rtol=0, atol=LOGITS)
    outs = F[f"{prefix}/outs"]  # (task, batch, D); the shared embedding is repeated
    tokens = output.tokens_BSD.transpose(0, 1)
    assert len(tokens) == (1 if edition == "S" else len(outs))
    np.testing.assert_allclose(tokens.expand(*outs.shape), outs, rtol=0, atol=LOGITS)
    if f"{prefix}/div" in F:
        with torch.no_grad():
            divergence = network.head.divergence_logits(output.tokens_BSD)
        np.testing.assert_allclose(divergence, F[f"{prefix}/div"], rtol=0, atol=LOGITS)


@pytest.mark.parametrize("sessions", STAGES)
def test_training_step(sessions):
    method = method_of("M", sessions)
    y = F.tensor(f"M/train/t{sessions}/y")
    targets = one_hot(y, method.context.high)
    check_step(method, f"M/train/t{sessions}/hard", F.tensor(f"M/train/t{sessions}/x"), targets)


def test_full_width_training_step():
    student = F.network("M/full_t2", F.seed + 61)
    teacher = F.first_session("M/full_t2", F.seed + 60)
    method = F.method_with(DAFormer(student), teacher)
    targets = one_hot(F.tensor("M/train_full/y"), method.context.high)
    check_step(method, "M/train_full/hard", F.tensor("M/train_full/x"), targets)


@pytest.mark.parametrize(
    "key", [key.removesuffix("/logits") for key in F.keys("nonofficial_S/train/") if "/logits" in key]
)
def test_shared_key_training_step(key):
    sessions = int(key.split("/")[2].removeprefix("t"))
    method = method_of("S", sessions)
    y = F.tensor(f"M/train/t{sessions}/y")
    check_step(method, key, F.tensor(f"M/train/t{sessions}/x"), one_hot(y, method.context.high))


@pytest.mark.parametrize("sessions", STAGES[1:])
def test_mixed_training_step_with_sharpness(sessions):
    method, prefix = method_of("M", sessions), f"M/train/t{sessions}/mix"
    network, names = method.network, F.meta[f"M/train/t{sessions}/mix/grad_names"]
    x, targets = mixed_batch(sessions)
    check_step(method, prefix, x, targets)
    trained = {name: p for name, p in network.named_parameters() if p.grad is not None}
    norm = torch.stack([(p.detach().abs() * p.grad).norm() for p in trained.values()]).norm()
    np.testing.assert_allclose(norm.item(), F[f"{prefix}/sam_grad_norm"], rtol=GRADIENTS)
    offsets = dict(zip(trained, sharpness_offsets(trained.values(), SAM_RHO), strict=True))
    moved = {name: torch.zeros(1) for name in names} | to_transformer(offsets, "daformer")
    np.testing.assert_allclose(
        [moved[name].double().norm().item() for name in names], F[f"{prefix}/sam_ew_l2"], rtol=GRADIENTS, atol=NOTHING
    )

    # the engine's wrapper on the same batch: up, second pass, back and step
    network.zero_grad()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(decay_groups(method, 0.0), lr=0.0)
    wrapper = SharpnessAwareOptimWrapper(rho=SAM_RHO, optimizer=optimizer, precision="fp32")
    assert wrapper.passes == 2
    wrapper.update_params(sum(method(x, targets, mode="loss").values()))
    second = method(x, targets, mode="loss")
    np.testing.assert_allclose(loss_tuple(second), F[f"{prefix}/sam_loss_tuple2"], rtol=0, atol=LOSSES)
    total = sum(second.values())
    np.testing.assert_allclose(total.item(), F[f"{prefix}/sam_total2"], rtol=0, atol=LOSSES)
    wrapper.zero_grad = lambda **_: None  # keep the second gradient for the comparison
    wrapper.update_params(total)
    F.check_norms(F.gradients(network), names, F[f"{prefix}/sam_grad_l2_2"])
    restored = max((p - start[name]).abs().max().item() for name, p in network.named_parameters())
    assert restored <= F[f"{prefix}/sam_restored_maxdiff"]


def test_finetuning_step():
    method = method_of("M", LAST)
    method.begin_finetuning()
    check_step(method, "M/ft", *mixed_batch(LAST))


def test_frozen_parameters():
    method = F.method_with(DAFormer(stage("M", LAST, F.seed)))
    assert F.frozen(method.network) == set(F.meta["freeze_task/frozen"])
    method.begin_finetuning()
    # the divergence classifier gets no gradient in fine-tuning; here it is frozen, for data-parallel training
    divergence = {name for name in F.shapes[f"M/t{LAST}"] if name.startswith("head_div.")}
    assert F.frozen(method.network) == set(F.meta["freeze_ft/frozen"]) | divergence


def test_shared_key_is_never_frozen_in_a_session():
    method = F.method_with(DAFormer(stage("S", LAST, F.seed)))
    heads = {name for name in F.shapes[f"S/t{LAST}"] if name.startswith("head.")}
    newest = {name for name in heads if name.startswith(f"head.{LAST - 1}.")}
    assert F.frozen(method.network) == heads - newest


def test_optimiser_groups():
    method = F.method_with(DAFormer(stage("M", LAST, F.seed)))
    for ours, group in zip(decay_groups(method, 1e-6), F.meta["optimizer/groups"], strict=True):
        found = {id(p) for p in ours["params"]}
        named = {k: p for k, p in method.network.named_parameters() if id(p) in found}
        expected = {name for name in group["names"] if not is_unused(name, "daformer")}
        assert set(to_transformer(named, "daformer")) == expected
        assert ours["weight_decay"] == group["weight_decay"]


def test_growth():
    network = stage("M", LAST - 1, F.seed)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.grow(F.params["incs"][LAST - 1])
    key = network.head.keys[-1]
    assert key.weight.abs().max() == F["growth/new_key_weight_absmax"]
    assert key.bias.abs().max() == F["growth/new_key_bias_absmax"]
    np.testing.assert_array_equal(network.head.divergence.linear.weight.shape, F["growth/head_div_shape"])
    after = network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.startswith("head.divergence."))


@pytest.mark.parametrize("kind", ["hard", "mix"])
@pytest.mark.parametrize("case", sorted({key.split("/")[1] for key in F.keys("loss/tau")}))
def test_losses_alone(case, kind):
    old, new = F.tensor("loss/logits_teacher"), F.tensor("loss/logits_student").requires_grad_()
    divergence = F.tensor("loss/logits_div").requires_grad_()
    low, high = old.shape[1], new.shape[1]
    balance = low / high
    targets = one_hot(F.tensor("loss/labels"), high) if kind == "hard" else F.tensor(f"loss/{case}/mix_target")
    terms = [
        (1 - balance) * mean_bce(new, targets),
        balance * softened_kl(old, new, float(case.removeprefix("tau"))),
        DAFormer.__init__.__defaults__[1] * mean_bce(divergence, divergence_targets(targets, low)),
    ]
    total = sum(terms)
    np.testing.assert_allclose([t.item() for t in terms], F[f"loss/{case}/{kind}/tuple"], rtol=0, atol=LOSSES)
    np.testing.assert_allclose(total.item(), F[f"loss/{case}/{kind}/total"], rtol=0, atol=LOSSES)
    total.backward()
    for ours, name in ((new.grad, "grad_logits"), (divergence.grad, "grad_div")):
        np.testing.assert_allclose(ours, F[f"loss/{case}/{kind}/{name}"], rtol=GRADIENTS, atol=1e-7)


def test_mixing_weights():
    rng = np.random.RandomState(int(F["mixup/numpy_seed"]))
    found = [mixing_weight(rng, 0.8) for _ in F["mixup/lambda_stream"]]  # alpha: daformer_parity.md's release
    np.testing.assert_allclose(found, F["mixup/lambda_stream"], rtol=1e-12)


@pytest.mark.parametrize("case", sorted({key.split("/")[1] for key in F.keys("nonofficial_knn/K")}))
def test_neighbour_invariance(case):
    count, temperature = case.removeprefix("K").split("_tau")
    old, new = F.tensor("nonofficial_knn/feat_old"), F.tensor("nonofficial_knn/feat_new").requires_grad_()
    index = nearest_neighbours(cosine_matrix(old, old), int(count))
    np.testing.assert_array_equal(index, F[f"nonofficial_knn/{case}/idx"])
    loss = neighbour_invariance(old, new, int(count), float(temperature))
    loss.backward()
    np.testing.assert_allclose(loss.item(), F[f"nonofficial_knn/{case}/loss"], rtol=0, atol=LOSSES)
    expected = F[f"nonofficial_knn/{case}/grad_new"]
    np.testing.assert_allclose(
        new.grad, expected, rtol=GRADIENTS, atol=max(GRADIENTS * np.abs(expected).max(), NOTHING)
    )
