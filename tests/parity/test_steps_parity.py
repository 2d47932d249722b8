"""Cases b and j: training steps of KRT and of the POD baseline."""

import math

import numpy as np
import parity_fixtures
import pytest
import torch
from official_models import DTYPES, images, network_from_shapes, official_gradients

from mlcil.engine.optim import OneCycle, decay_groups
from mlcil.interop.official import from_official, to_official
from mlcil.methods import KRT, POD, Finetune
from mlcil.methods.base import SessionContext
from mlcil.methods.pseudo_labels import apply_pseudo_labels

Z = parity_fixtures.load()
SHAPES = parity_fixtures.shapes()
SEED_A, SEED_B = int(Z["meta/seed_A"]), int(Z["meta/seed_B"])
CASES = sorted({key.split("/")[0] for key in Z.files if key.startswith("b") and "low_high" in key})


def context(low, high, step, index):
    # the fixtures have the official sum (batch scale 1), so the batch is the reference batch
    return SessionContext(index, low, high, step, high, None, 0.0, batch_size=64)


def krt_case(case, dtype):
    """Teacher with seed A, student with seed B, old tokens and heads frozen, as krt_parity.md says."""
    low, high, step = map(int, Z[f"{case}/low_high_tasksize"])
    probe = network_from_shapes(SHAPES["thin_ica"], SEED_A)
    index = int(np.searchsorted(np.cumsum(probe.classes_per_session), high))
    student = network_from_shapes(SHAPES["thin_ica"], SEED_B, index).to(dtype)
    method = KRT(student, token_weight=float(Z[f"{case}/lambda"]))
    method.begin_session(context(low, high, step, index))
    newest = from_official(
        {
            k: torch.from_numpy(np.asarray(v))
            for k, v in parity_fixtures.make_weights(SHAPES["thin_ica"], SEED_B).items()
        }
    )[0]
    student.load_state_dict({k: v for k, v in newest.items() if k in student.state_dict()}, strict=True)
    teacher = network_from_shapes(SHAPES["thin_ica"], SEED_A, index).to(dtype).eval().requires_grad_(False)
    method._teacher = [teacher]
    method.threshold = float(Z[f"{case}/thr"])
    method.train()
    target = torch.from_numpy(Z[f"{case}/target_in"])[:, :high].to(dtype)
    return method, images(Z["a/images_u8"], dtype), target


def check_gradient_norms(network, names, expected, rtol):
    gradients = official_gradients(network)
    for name, norm in zip(names, expected, strict=True):
        gradient = gradients[str(name)]
        if math.isnan(norm):
            assert gradient is None, f"{name} should have no gradient"
        else:
            assert gradient is not None, f"{name} should have a gradient"
            np.testing.assert_allclose(gradient.double().norm().item(), norm, rtol=rtol, atol=1e-12, err_msg=str(name))


def test_there_are_incremental_cases():
    assert CASES


def test_base_session_step():
    network = network_from_shapes(SHAPES["thin_ica"], SEED_B, 1)
    method = KRT(network)
    high = network.classes_per_session[0]
    method.context = context(0, high, high, 0)
    method.train()
    inputs = images(Z["a/images_u8"], torch.float32)
    target = torch.from_numpy(Z["b0/target_in"])[:, :high]
    losses = method(inputs, target, mode="loss")
    sum(losses.values()).backward()
    total, cls, token = Z["b0/f32/loss_cls_token"]
    assert set(losses) == {"loss_cls"}
    assert token == 0
    np.testing.assert_allclose(losses["loss_cls"].item(), total, rtol=1e-5)
    np.testing.assert_allclose(total, cls, rtol=1e-6)
    check_gradient_norms(network, Z["b0/param_names"], Z["b0/f32/grad_l2"], 5e-3)


@pytest.mark.parametrize("tag", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_incremental_first_step(case, tag):
    dtype = DTYPES[tag]
    rtol, atol, grad_rtol = (1e-7, 1e-9, 1e-7) if tag == "f64" else (0.0, 1e-5, 5e-3)
    method, inputs, target = krt_case(case, dtype)
    old = method.teacher_output(inputs)
    np.testing.assert_allclose(old.logits_BC, Z[f"{case}/{tag}/old_logits"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(old.tokens_BSD, Z[f"{case}/{tag}/old_tokens"], rtol=rtol, atol=atol)
    pseudo = apply_pseudo_labels(target, old.logits_BC, method.threshold)
    np.testing.assert_array_equal(pseudo, Z[f"{case}/{tag}/target_after_dpl"])

    losses = method(inputs, target, mode="loss")
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
    stored = [key for key in Z.files if key.startswith(prefix)]
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
@pytest.mark.parametrize("case", CASES)
def test_batch_norm_buffers_after_one_forward(case, tag):
    method, inputs, _ = krt_case(case, DTYPES[tag])
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
@pytest.mark.parametrize("case", CASES)
def test_four_optimiser_steps(case, tag):
    method, inputs, target = krt_case(case, DTYPES[tag])
    expected = Z[f"{case}/{tag}/loss_cls_token_per_step"]
    peak = float(Z[f"{case}/lr_per_step"].max())
    optimizer = torch.optim.Adam(decay_groups(method, 1e-4), lr=1e-4)
    schedule = OneCycle(optimizer, epochs=2, epoch_length=3)
    rtol = 1e-7 if tag == "f64" else 1e-3
    for step, row in enumerate(expected):
        np.testing.assert_allclose(optimizer.param_groups[0]["lr"], Z[f"{case}/lr_per_step"][step], rtol=1e-9)
        np.testing.assert_allclose(optimizer.param_groups[0]["betas"][0], Z[f"{case}/beta1_per_step"][step], rtol=1e-9)
        losses = method(inputs, target, mode="loss")
        total = sum(losses.values())
        np.testing.assert_allclose(total.item(), row[0], rtol=rtol, err_msg=f"step {step}")
        np.testing.assert_allclose(losses["loss_cls"].item(), row[1], rtol=rtol, err_msg=f"step {step}")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
    assert peak <= 1e-4 * (1 + 1e-9)
    method.eval()
    with torch.no_grad():
        logits = method.network(inputs).logits_BC
    np.testing.assert_allclose(
        logits, Z[f"{case}/{tag}/eval_logits_after_4_steps"], rtol=0, atol=1e-5 if tag == "f64" else 1e-2
    )


def test_pod_step():
    """Case j: the baseline; its POD columns are bare terms, the total has the weights."""
    shapes = SHAPES["thin_baseline"]
    high = shapes["head.fc.bias"][0]
    low = Z["j/f32/old_logits_eval"].shape[1]
    student = network_from_shapes(shapes, SEED_B)
    old_shapes = {k: ([low, *v[1:]] if k.startswith("head.fc") else v) for k, v in shapes.items()}
    teacher = network_from_shapes(old_shapes, SEED_A).eval().requires_grad_(False)
    method = POD(student, spatial=5.0, flat=180.0)
    method.context = context(low, high, high - low, 1)
    method._teacher = [teacher]
    method.train()
    inputs = images(Z["a/images_u8"], torch.float32)
    np.testing.assert_allclose(method.teacher_output(inputs).logits_BC, Z["j/f32/old_logits_eval"], atol=1e-5)
    losses = method(inputs, torch.from_numpy(Z["j/target"]), mode="loss")
    total = sum(losses.values())
    total.backward()
    expected = Z["j/f32/loss_cls_podspatial_podflat"]
    np.testing.assert_allclose(total.item(), expected[0], rtol=5e-3)
    np.testing.assert_allclose(losses["loss_cls"].item(), expected[1], rtol=5e-3)
    growth = math.sqrt(high / (high - low))
    for name, weight, value in (("loss_pod_spatial", 5.0, expected[2]), ("loss_pod_flat", 180.0, expected[3])):
        ours = losses[name].item()
        assert any(math.isclose(ours / scale, value, rel_tol=5e-3) for scale in (1.0, weight, growth * weight)), name
    check_gradient_norms(student, Z["j/param_names"], Z["j/f32/grad_l2"], 5e-3)


def test_new_classes_keep_the_old_rows_of_the_linear_head():
    assert bool(Z["j/add_classes_keeps_old_rows"])
    method = Finetune(network_from_shapes(SHAPES["thin_baseline"], SEED_A))
    before = method.network.head.linear.weight.detach().clone()
    method.network.grow(2)
    torch.testing.assert_close(method.network.head.linear.weight[: len(before)].detach(), before, rtol=0, atol=0)
