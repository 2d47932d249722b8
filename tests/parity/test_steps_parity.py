"""Cases b and j: training steps of KRT and of the POD baseline."""

import math

import numpy as np
import pytest
import torch
from fixture_sets import DTYPES
from krt_fixtures import each, official_gradients
from method_calls import begin, losses_of, place, session

from mlcil.engine.optim import decay_groups
from mlcil.engine.schedules import OneCycle
from mlcil.interop.official import to_official
from mlcil.methods import KRT, POD, Finetune
from mlcil.methods.pseudo_labels import apply_pseudo_labels


def cases(Z):
    return [case for case in Z.parts("b", 0) if f"{case}/low_high_tasksize" in Z]


def krt_case(Z, case, dtype):
    """Teacher with seed A, student with seed B, old tokens and heads frozen, as krt_parity.md says."""
    low, high, step = map(int, Z[f"{case}/low_high_tasksize"])
    seed_a, seed_b = Z.seeds
    sizes = Z.network("thin_ica", seed_a).classes_per_session
    index = int(np.searchsorted(np.cumsum(sizes), high))
    student = Z.network("thin_ica", seed_b, index).to(dtype)
    method = KRT(student, token_weight=float(Z[f"{case}/lambda"]))
    context = session(index, low, high, step, batch=method.reference_batch)
    begin(method, context)
    Z.fill(student, Z.weights("thin_ica", seed_b))
    place(method, context, Z.network("thin_ica", seed_a, index).to(dtype))
    method.threshold = float(Z[f"{case}/thr"])
    target = Z.tensor(f"{case}/target_in", dtype)[:, :high]
    return method, Z.images("a/images_u8", dtype), target


def check_gradient_norms(network, names, expected, rtol):
    gradients = official_gradients(network)
    for name, norm in zip(names, expected, strict=True):
        gradient = gradients[str(name)]
        if math.isnan(norm):
            assert gradient is None, f"{name} should have no gradient"
        else:
            assert gradient is not None, f"{name} should have a gradient"
            np.testing.assert_allclose(gradient.double().norm().item(), norm, rtol=rtol, atol=1e-12, err_msg=str(name))


@each()
def test_there_are_incremental_cases(Z):
    assert cases(Z)


@each()
def test_base_session_step(Z):
    network = Z.network("thin_ica", Z.seeds[1], 1)
    method = KRT(network)
    high = network.classes_per_session[0]
    place(method, session(0, 0, high, batch=method.reference_batch))
    losses = losses_of(method, Z.images("a/images_u8"), Z.tensor("b0/target_in")[:, :high])
    sum(losses.values()).backward()
    total, cls, token = Z["b0/f32/loss_cls_token"]
    assert set(losses) == {"loss_cls"}
    assert token == 0
    np.testing.assert_allclose(losses["loss_cls"].item(), total, rtol=1e-5)
    np.testing.assert_allclose(total, cls, rtol=1e-6)
    check_gradient_norms(network, Z["b0/param_names"], Z["b0/f32/grad_l2"], 5e-3)


@pytest.mark.parametrize("tag", DTYPES)
@each("case", cases)
def test_incremental_first_step(Z, case, tag):
    dtype = DTYPES[tag]
    rtol, atol, grad_rtol = (1e-7, 1e-9, 1e-7) if tag == "f64" else (0.0, 1e-5, 5e-3)
    method, inputs, target = krt_case(Z, case, dtype)
    old = method.teacher_output(inputs)
    np.testing.assert_allclose(old.logits_BC, Z[f"{case}/{tag}/old_logits"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(old.tokens_BSD, Z[f"{case}/{tag}/old_tokens"], rtol=rtol, atol=atol)
    pseudo = apply_pseudo_labels(target, old.logits_BC, method.threshold)
    np.testing.assert_array_equal(pseudo, Z[f"{case}/{tag}/target_after_dpl"])

    losses = losses_of(method, inputs, target)
    sum(losses.values()).backward()
    total, cls, token = Z[f"{case}/{tag}/loss_cls_token_per_step"][0]
    loss_rtol = 1e-7 if tag == "f64" else 1e-5
    np.testing.assert_allclose(losses["loss_cls"].item(), cls, rtol=loss_rtol)
    # the fixture's token column may be the bare or the weighted term: the total decides
    np.testing.assert_allclose(sum(losses.values()).item(), total, rtol=loss_rtol)
    assert token > 0
    check_gradient_norms(method.network, Z[f"{case}/param_names"], Z[f"{case}/{tag}/grad_l2"], grad_rtol)
    gradients = official_gradients(method.network)
    prefix = f"{case}/{tag}/grad/"
    stored = Z.keys(prefix)
    assert stored
    for key in stored:
        expected = Z[key]
        ours = gradients[key.removeprefix(prefix)].numpy()
        if ours.shape != expected.shape:  # pos_embed: the first positions only
            ours = ours[:, : expected.shape[1]]
        scale = np.abs(expected).max()
        bar = 1e-7 if tag == "f64" else 5e-3
        np.testing.assert_allclose(ours, expected, rtol=bar, atol=bar * scale, err_msg=key)


@pytest.mark.parametrize("tag", DTYPES)
@each("case", cases)
def test_batch_norm_buffers_after_one_forward(Z, case, tag):
    method, inputs, _ = krt_case(Z, case, DTYPES[tag])
    with torch.no_grad():
        output = method.network(inputs)
    rtol = 1e-7 if tag == "f64" else 1e-5
    np.testing.assert_allclose(
        output.logits_BC, Z[f"{case}/{tag}/logits_train"], rtol=rtol, atol=1e-9 if tag == "f64" else 2e-5
    )
    np.testing.assert_allclose(
        output.tokens_BSD, Z[f"{case}/{tag}/tokens_train"], rtol=rtol, atol=1e-9 if tag == "f64" else 2e-5
    )
    buffers = to_official(method.network.state_dict())
    norms = [buffers[str(name)].double().norm().item() for name in Z[f"{case}/bn_names"]]
    np.testing.assert_allclose(norms, Z[f"{case}/{tag}/bn_l2_after_1_forward"], rtol=rtol)
    for name in ("conv1.1.running_mean", "conv1.1.running_var"):
        np.testing.assert_allclose(buffers[name], Z[f"{case}/{tag}/{name}_after"], rtol=rtol, atol=1e-7)


@pytest.mark.parametrize("tag", DTYPES)
@each("case", cases)
def test_four_optimiser_steps(Z, case, tag):
    method, inputs, target = krt_case(Z, case, DTYPES[tag])
    expected = Z[f"{case}/{tag}/loss_cls_token_per_step"]
    peak = float(Z[f"{case}/lr_per_step"].max())
    decay, top, steps, epochs = Z.told(
        r"Adam \+ decay groups \((\S+?)\) \+ OneCycleLR\(max (\S+), (\d+) steps x (\d+) epochs"
    )
    optimizer = torch.optim.Adam(decay_groups(method, decay), lr=top)
    schedule = OneCycle(optimizer, epochs=int(epochs), epoch_length=int(steps))
    rtol = 1e-7 if tag == "f64" else 1e-3
    for step, row in enumerate(expected):
        np.testing.assert_allclose(optimizer.param_groups[0]["lr"], Z[f"{case}/lr_per_step"][step], rtol=1e-9)
        np.testing.assert_allclose(optimizer.param_groups[0]["betas"][0], Z[f"{case}/beta1_per_step"][step], rtol=1e-9)
        losses = losses_of(method, inputs, target)
        total = sum(losses.values())
        np.testing.assert_allclose(total.item(), row[0], rtol=rtol, err_msg=f"step {step}")
        np.testing.assert_allclose(losses["loss_cls"].item(), row[1], rtol=rtol, err_msg=f"step {step}")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    assert peak <= top * (1 + 1e-9)
    method.eval()
    with torch.no_grad():
        logits = method.network(inputs).logits_BC
    np.testing.assert_allclose(
        logits, Z[f"{case}/{tag}/eval_logits_after_4_steps"], rtol=0, atol=1e-5 if tag == "f64" else 1e-2
    )


@each()
def test_pod_step(Z):
    """Case j: the baseline; its POD columns are bare terms, the total has the weights."""
    high = Z.shapes["thin_baseline"]["head.fc.bias"][0]
    low = Z["j/f32/old_logits_eval"].shape[1]
    spatial, flat = Z.told(r"lambda_c (\d+), lambda_f (\d+)")
    student = Z.network("thin_baseline", Z.seeds[1])
    method = POD(student, spatial=spatial, flat=flat)
    teacher = Z.network("thin_baseline", Z.seeds[0], classes=low)
    place(method, session(1, low, high, batch=method.reference_batch), teacher)
    inputs = Z.images("a/images_u8")
    np.testing.assert_allclose(method.teacher_output(inputs).logits_BC, Z["j/f32/old_logits_eval"], atol=1e-5)
    losses = losses_of(method, inputs, Z.tensor("j/target"))
    total = sum(losses.values())
    total.backward()
    expected = Z["j/f32/loss_cls_podspatial_podflat"]
    np.testing.assert_allclose(total.item(), expected[0], rtol=5e-3)
    np.testing.assert_allclose(losses["loss_cls"].item(), expected[1], rtol=5e-3)
    growth = math.sqrt(high / (high - low))
    for name, weight, value in (("loss_pod_spatial", spatial, expected[2]), ("loss_pod_flat", flat, expected[3])):
        ours = losses[name].item()
        assert any(math.isclose(ours / scale, value, rel_tol=5e-3) for scale in (1.0, weight, growth * weight)), name
    check_gradient_norms(student, Z["j/param_names"], Z["j/f32/grad_l2"], 5e-3)


@each()
def test_new_classes_keep_the_old_rows_of_the_linear_head(Z):
    assert bool(Z["j/add_classes_keeps_old_rows"])
    method = Finetune(Z.network("thin_baseline", Z.seeds[0]))
    before = method.network.head.linear.weight.detach().clone()
    method.network.grow(2)
    torch.testing.assert_close(method.network.head.linear.weight[: len(before)].detach(), before, rtol=0, atol=0)
