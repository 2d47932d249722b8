"""R-DFCIL's networks, inversion, losses and training steps against the numbers of its authors' code."""

import functools
import re

import numpy as np
import pytest
import torch
from dfcil_fixtures import (
    FORWARD,
    GRADIENT,
    LATER,
    LAYERS,
    SETS,
    learning_rates,
    literal,
    load_into,
    norm,
    scalar,
    targets,
    with_precisions,
)
from fixture_sets import DTYPES, over
from method_calls import place, refine, session

from mlcil.engine.schedules import Steps
from mlcil.interop.official import from_rdfcil
from mlcil.methods import RDFCIL
from mlcil.methods.rdfcil import RelationKD, adaptive_factors, angle_loss, balancing_weights, hard_kd
from mlcil.models.generators import Generator
from mlcil.models.inversion import BatchNormStatistics, Inversion, InversionSettings, gaussian_kernel, smoothed
from mlcil.models.network import IncrementalNetwork
from mlcil.protocols import order_classes

BACKBONES = {"resnet32": "resnet32_rdfcil", "resnet18": "resnet18_rdfcil"}
each = functools.partial(over, SETS["rdfcil"])


def network_of(backbone, sizes, image_size, dtype):
    """An untrained network with one head a session."""
    network = IncrementalNetwork({"name": BACKBONES[backbone]}, {"type": "session_linear"}, image_size)
    for size in sizes:
        network.grow(size)
    return network.to(dtype)


def filled(Z, backbone, sizes, image_size, dtype, seed=None, heads=None):
    """A network whose weights follow the rule, with given head weights where there are some."""
    network = network_of(backbone, sizes, image_size, dtype)
    features = network.backbone.out_channels
    shapes = dict(Z.shapes[f"{backbone}.backbone"])
    shapes.update({f"head.classifiers.{i}.weight": [size, features] for i, size in enumerate(sizes)})
    parts, unknown = from_rdfcil(Z.weights(shapes, seed))
    assert not unknown
    load_into(network, parts["network"])
    for classifier, weight in zip(network.head.classifiers, heads or [], strict=False):
        classifier.weight.data = torch.from_numpy(weight).to(dtype)
    return network


def ours(name):
    """Our name of an official parameter."""
    parts, unknown = from_rdfcil({name: torch.zeros(())})
    assert not unknown
    return next(iter(next(iter(parts.values()))))


# -- networks ----------------------------------------------------------------------------------------------------


def networks(Z):
    """Tag, backbone, number and shape of the input, classes of the heads."""
    return [
        (tag, backbone, index, shape, literal(rest, "["))
        for tag, backbone, inputs, rest in re.findall(
            r"`(\w+)`: (resnet\d+), F=\d+, inputs (\[.*?\]), head classes(.*?\])", Z.bullet("backbone.<tag>")
        )
        for index, shape in enumerate(literal(inputs, "["))
    ]


@pytest.mark.parametrize("precision", DTYPES)
@each("tag backbone index shape sizes", networks)
def test_backbone(Z, tag, backbone, index, shape, sizes, precision):
    dtype = DTYPES[precision]
    network = filled(Z, backbone, sizes, shape[-1], dtype)
    images = Z.x(f"{tag}.x{index}", shape).to(dtype)
    key = f"backbone.{tag}.in{index}"
    network.eval()
    with torch.no_grad():
        output = network(images)
        feature_map = output.maps[-1]
        Z.close(f"{key}.eval.pen", output.features_BK, FORWARD)
        Z.close(f"{key}.eval.logits", output.logits_BC, FORWARD)
        if f"{key}.eval.featmap" in Z:
            Z.close(f"{key}.eval.featmap", feature_map, FORWARD)
        summary = torch.stack([feature_map.mean(), feature_map.std(), feature_map.min(), feature_map.max()])
        Z.close(f"{key}.eval.featmap_mean_std", summary, FORWARD)
        network.train()
        output = network(images)
    Z.close(f"{key}.train.pen", output.features_BK, FORWARD)
    Z.close(f"{key}.train.logits", output.logits_BC, FORWARD)
    state = network.state_dict()
    statistics = Z.keys(f"{key}.train.after.")
    assert statistics
    for name in statistics:
        Z.close(name, state[ours("backbone." + name.removeprefix(f"{key}.train.after."))], FORWARD)


def generator_of(Z, dataset, dtype):
    """A generator whose weights follow the rule."""
    shapes = Z.shapes[f"generator.{dataset}"]
    side = Z[f"generator.{dataset}.eval.img"].shape[-1]
    generator = Generator(side, latent=shapes["generator.l1.0.weight"][1])
    parts, unknown = from_rdfcil(Z.weights(shapes))
    assert not unknown
    load_into(generator, parts["generator"])
    return generator.to(dtype)


@pytest.mark.parametrize("precision", DTYPES)
@each("dataset count", lambda Z: map(tuple, Z.cases("generator.<dataset>")))
def test_generator(Z, dataset, count, precision):
    dtype = DTYPES[precision]
    generator = generator_of(Z, dataset, dtype)
    latents = Z.x(f"gen.{dataset}.z", (count, generator.latent)).to(dtype)
    generator.eval()
    with torch.no_grad():
        Z.close(f"generator.{dataset}.eval.img", generator(latents), FORWARD)
        generator.train()
        Z.close(f"generator.{dataset}.train.img", generator(latents), FORWARD)
    state = generator.state_dict()
    prefix = f"generator.{dataset}.train.after."
    assert Z.keys(prefix)
    for name in Z.keys(prefix):
        Z.close(name, state[ours("generator." + name.removeprefix(prefix))], FORWARD)


# -- inversion ---------------------------------------------------------------------------------------------------


def inversion_case(Z, dataset, backbone, sizes, heads, dtype):
    """The old network with stored heads and a generator by the rule."""
    generator = generator_of(Z, dataset, dtype)
    side = Z[f"generator.{dataset}.eval.img"].shape[-1]
    teacher = filled(Z, backbone, sizes, side, dtype, heads=heads).eval().requires_grad_(False)
    inversion = Inversion(teacher, InversionSettings())
    inversion.generator.load_state_dict(generator.state_dict())
    return teacher, inversion


TERMS = {"ce": "content", "cb": "balance", "pr": "smoothness", "rf": "statistics"}


@each("tag dataset backbone width sizes count steps precision", with_precisions("inv.<tag>"))
def test_inversion(Z, tag, dataset, backbone, width, sizes, count, steps, precision):
    dtype = DTYPES[precision]
    key = f"inv.{tag}"
    heads = [Z[f"{key}.head.classifiers.{i}.weight"] for i in range(len(sizes))]
    teacher, inversion = inversion_case(Z, dataset, backbone, sizes, heads, dtype)
    generator = inversion.generator
    assert teacher.backbone.out_channels == width

    generator.eval()
    with torch.no_grad():
        _, images = inversion.images(Z.x(f"{key}.zs", (count, generator.latent)).to(dtype))
        labels = teacher(images).logits_BC.argmax(1)
    sure = Z[f"{key}.sample.top2_gap"] > 0.02
    np.testing.assert_array_equal(labels[sure], Z[f"{key}.sample.labels"][sure])
    Z.close(f"{key}.sample.img0", images[0], FORWARD)
    Z.close(f"{key}.sample.img_mean_std", torch.stack([images.mean(), images.std()]), FORWARD)
    Z.close(f"{key}.gauss_kernel", gaussian_kernel().to(dtype), FORWARD)

    latents = [Z.x(f"{key}.z{k}", (count, generator.latent)).to(dtype) for k in range(steps)]
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.train()
    with BatchNormStatistics(teacher).watch() as divergences:
        normalised, images = inversion.images(latents[0])
        logits = teacher(images).logits_BC
    Z.close(f"{key}.step0.rf_layers", torch.stack(divergences), LAYERS)
    Z.close(f"{key}.step0.logits", logits, FORWARD)
    blurred = smoothed(normalised)
    Z.close(f"{key}.step0.smooth_mean_std", torch.stack([blurred.mean(), blurred.std()]), FORWARD)
    losses = inversion.losses(teacher, latents[0])
    for short, name in TERMS.items():
        gradients = torch.autograd.grad(losses[name], list(generator.parameters()), retain_graph=True)
        Z.close(f"{key}.grad_{short}.global", np.asarray(norm(gradients), scalar(dtype)), GRADIENT)
    generator.load_state_dict(before)

    for k in range(steps):
        bar = FORWARD if k == 0 else LATER
        losses = inversion.step(teacher, latents[k])
        for short, name in TERMS.items():
            Z.close(f"{key}.step{k}.{short}", losses[name], bar)
        Z.close(f"{key}.step{k}.total", sum(losses.values()), bar)
        if k == 0:
            check_norms(Z, f"{key}.step0.grad_total", generator, "generator.", dtype)
        after = np.asarray(norm(generator.parameters()), scalar(dtype))
        Z.close(f"{key}.step{k}.param_norm_after", after, LATER)
    Z.close_mostly(f"{key}.final.conv_last.weight", generator.to_image.conv.weight, LATER)
    Z.close(f"{key}.final.gen.last_bn.running_mean", generator.to_image.norm.running_mean, LATER)


def check_norms(Z, key, module, prefix, dtype):
    """Gradient norms by parameter, in the stored order; those that are mathematically 0 absolutely."""
    gradients = dict(module.named_parameters())
    norms = np.array(
        [norm([gradients[ours(prefix + str(name).removeprefix(prefix))].grad]) for name in Z[f"{key}.names"]],
        scalar(dtype),
    )
    largest = float(Z[f"{key}.norms"].max())
    expected = Z[f"{key}.norms"]
    for name, found, wanted in zip(Z[f"{key}.names"], norms, expected, strict=True):
        assert abs(found - wanted) <= max(GRADIENT * wanted, 1e-4 * largest), name
    Z.close(f"{key}.norms", norms, GRADIENT)
    Z.close(f"{key}.global", np.asarray(norm([p.grad for p in gradients.values()]), scalar(dtype)), GRADIENT)


# -- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", DTYPES)
@each("tag count width", lambda Z: map(tuple, Z.cases("rkd.<tag>")))
def test_relation(Z, tag, count, width, precision):
    dtype = DTYPES[precision]
    key = f"rkd.{tag}"
    relation = RelationKD(width)
    parts, unknown = from_rdfcil(Z.weights(Z.shapes[f"rkd.{width}"]))
    assert not unknown
    load_into(relation, parts["relation"])
    relation.to(dtype)
    student, teacher = (Z.x(f"{key}.{side}", (count, width)).to(dtype) for side in ("student", "teacher"))
    student.requires_grad_(True)
    loss = relation(student, teacher)
    loss.backward()
    Z.close(f"{key}.loss", loss, FORWARD)
    Z.close(f"{key}.grad_student", student.grad, GRADIENT)
    parameters = dict(relation.named_parameters())
    keys = Z.keys(f"{key}.gradnorm.")
    largest = max(float(Z[name]) for name in keys)
    for name in keys:
        found = norm([parameters[ours("rkd." + name.removeprefix(f"{key}.gradnorm."))].grad])
        assert abs(found - float(Z[name])) <= max(GRADIENT * float(Z[name]), 1e-4 * largest), name
    with torch.no_grad():
        Z.close(f"{key}.loss_noproj", angle_loss(student, teacher), FORWARD)
        student[1], teacher[1] = student[0], teacher[0]
        Z.close(f"{key}.loss_dup_rows01", relation(student, teacher), FORWARD)


@pytest.mark.parametrize("precision", DTYPES)
@each("tag count", lambda Z: [tuple(case[:2]) for case in Z.cases("rkd.<tag>")])
def test_hard_distillation_and_local_classification(Z, tag, count, precision):
    dtype = DTYPES[precision]
    old, new = literal(Z.bullet("rkd.<tag>").split("with (o,n) = ")[1], "(")
    logits = Z.x(f"rkd.{tag}.logits_new", (count, old + new)).to(dtype)
    teacher = Z.x(f"rkd.{tag}.logits_old", (count, old)).to(dtype)
    labels = targets(count, old, old + new)
    np.testing.assert_array_equal(labels, Z[f"rkd.{tag}.targets"])
    Z.close(f"rkd.{tag}.hkd_raw", hard_kd(logits[:, :old], teacher), FORWARD)
    local = torch.nn.functional.cross_entropy(logits[:, old:], labels - old)
    Z.close(f"rkd.{tag}.local_ce_raw", local, FORWARD)


@each()
def test_adaptive_factors(Z):
    method = RDFCIL(network_of("resnet32", [1], 32, torch.float32))
    for old, new, alpha, beta, *factors in Z["factors.grid__exact"]:
        a, b = adaptive_factors(int(old), int(new))
        found = (method.ce * (1 + 1 / a) / b, method.hkd * a * b, method.rkd * a * b)
        np.testing.assert_allclose((a, b, *found), (alpha, beta, *factors), rtol=1e-12)


# -- training steps ------------------------------------------------------------------------------------------------

#: weight decay and first class order of the release
RELEASED = {
    "cifar100": (5e-4, "random:0"),
    "tiny-imagenet200": (2e-4, "random:0"),
    "imagenet100": (1e-4, "numpy:1993"),
}


def method_of(Z, tag, dtype, side):
    """Student, relation and teacher of a case, in the middle of their session."""
    old, new = map(int, Z[f"train.{tag}.n_old_new"])
    heads = [Z[key] for key in Z.keys(f"train.{tag}.head_old.")]
    sizes = [*map(len, heads), new]
    names = Z.shapes[f"train.{tag}.backbone"].keys()
    backbone = next(name for name in BACKBONES if Z.shapes[f"{name}.backbone"].keys() == names)
    method = RDFCIL(filled(Z, backbone, sizes, side, dtype))
    teacher = filled(Z, backbone, sizes[:-1], side, dtype, Z.seed + 1, heads)
    place(method, session(len(heads), old, old + new), teacher)
    method.relation = RelationKD(method.network.backbone.out_channels)
    parts, _ = from_rdfcil(Z.weights(Z.shapes[f"train.{tag}.rkd"]))
    load_into(method.relation, parts["relation"])
    method.relation.to(dtype)
    method.counts_C, method.weights_C = torch.zeros(old + new, dtype=dtype), torch.ones(old + new, dtype=dtype)
    return method


def check_training_gradients(Z, key, method, dtype):
    """Norms by part and by parameter; None where a part rests."""
    parameters = {f"network.{k}": v for k, v in method.network.named_parameters()}
    parameters.update({f"relation.{k}": v for k, v in method.relation.named_parameters()})
    parts = {"backbone": "network.backbone.", "head": "network.head.", "rkd": "relation."}
    for resting in Z.keys(f"{key}.grad_is_none."):
        part = parts[resting.removeprefix(f"{key}.grad_is_none.")]
        assert bool(Z[resting]) == all(p.grad is None for k, p in parameters.items() if k.startswith(part)), resting
    keys = Z.keys(f"{key}.gradnorm.")
    assert keys
    largest = max(float(Z[name]) for name in keys)
    for name in keys:
        part = name.removeprefix(f"{key}.gradnorm.")
        if part in parts:
            chosen = [p.grad for k, p in parameters.items() if k.startswith(parts[part])]
        else:
            where = "relation." if part.startswith("rkd.") else "network."
            chosen = [parameters[where + ours(part)].grad]
        found = norm(chosen)
        bar = GRADIENT if key.endswith(".rrl0") else LATER
        assert abs(found - float(Z[name])) <= max(bar * float(Z[name]), 1e-4 * largest), name


@each("tag dataset tasks split index count side steps precision", with_precisions("train.<tag>"))
def test_training_steps(Z, tag, dataset, tasks, split, index, count, side, steps, precision):
    dtype = DTYPES[precision]
    key = f"train.{tag}"
    method = method_of(Z, tag, dtype, side)
    low, high = method.context.low, method.context.high
    assert method.context.index == index
    decay, class_order = RELEASED[dataset]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    gaps = Z[f"{key}.syn_top2_gap"].reshape(-1, count)
    alpha, beta = adaptive_factors(low, high - low)
    kept = method.hkd * alpha * beta
    factors = np.array([method.ce * (1 + 1 / alpha) / beta, kept, method.rkd * alpha * beta], scalar(dtype))
    Z.close(f"{key}.factors_ce_hkd_rkd", factors, FORWARD)
    Z.close(f"{key}.ft.factors_ce_hkd", np.array([method.ce, kept], scalar(dtype)), FORWARD)
    classes = (split or high - low) + (high - low) * (tasks - 1)
    order = list(map(int, order_classes(list(map(str, range(classes))), class_order)))

    def step(k, name):
        images, made = (Z.xo(f"{key}.{kind}{k}", (count, 3, side, side)).to(dtype) for kind in ("x", "syn"))
        labels = targets(count, low, high, 7, 3 + k)
        np.testing.assert_array_equal([order[label] for label in labels], Z[f"{key}.{name}.raw_targets"])
        made_labels = method.teacher_output(made).logits_BC.argmax(1)
        sure = gaps[k] > 0.02
        np.testing.assert_array_equal(made_labels[sure], Z[f"{key}.{name}.syn_labels"][sure])
        losses = method.session_loss(images, labels, made)
        bar = FORWARD if name == "rrl0" else LATER
        terms = [term for term in ("ce", "hkd", "rkd") if f"{key}.{name}.{term}" in Z]
        assert {f"loss_{term}" for term in terms} == set(losses)
        for term in terms:
            Z.close(f"{key}.{name}.{term}", losses[f"loss_{term}"], bar)
        total = sum(losses.values())
        Z.close(f"{key}.{name}.total", total, bar)
        optimizer.zero_grad()
        total.backward()
        check_training_gradients(Z, f"{key}.{name}", method, dtype)
        optimizer.step()
        modules = {"backbone": method.network.backbone, "head": method.network.head, "rkd": method.relation}
        for part, module in modules.items():
            after = np.asarray(norm(module.parameters()), scalar(dtype))
            Z.close(f"{key}.{name}.param_norm_after.{part}", after, LATER)
        state = method.network.state_dict()
        for stored in Z.keys(f"{key}.{name}.after."):
            Z.close(stored, state[ours(stored.removeprefix(f"{key}.{name}.after."))], bar)
        np.testing.assert_array_equal(method.counts_C, Z[f"{key}.{name}.cls_count"])

    for k in range(steps):
        step(k, f"rrl{k}")

    before = torch.from_numpy(Z[f"{key}.ft.cls_count_before"])
    method.counts_C = before.to(dtype)
    refine(method)
    method.train()
    np.testing.assert_allclose(method.weights_C, Z[f"{key}.ft.cls_weight"], rtol=1e-6)
    np.testing.assert_allclose(balancing_weights(before), Z[f"{key}.ft.cls_weight"], rtol=1e-6)
    modes = [method.network.backbone.training, method.network.head.training]
    assert modes == [bool(mode) for mode in Z[f"{key}.ft.modes_backbone_head_training"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.005
    for k in range(len(Z.keys(f"{key}.ft")) and sum(f"{key}.ft{j}.total" in Z for j in range(100))):
        step(steps + k, f"ft{k}")


# -- schedule ------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "cifar100": {"milestones": (80, 120), "constant_from": 160, "constant": 0.005},
    "imagenet100": {"milestones": (30, 60), "constant_from": 90, "constant": 0.005},
}


@each("key", lambda Z: Z.keys("lr."))
def test_learning_rates(Z, key):
    expected = Z[key]
    options = SCHEDULES[key.removeprefix("lr.").removesuffix("__exact")]
    found = learning_rates(Steps, len(expected), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
