"""R-DFCIL's networks, inversion, losses and training steps against the numbers of its authors' code."""

import re

import dfcil_fixtures
import numpy as np
import pytest
import torch
from dfcil_fixtures import DTYPES, FORWARD, GRADIENT, LATER, LAYERS, literal, load_into, norm, one_hot, targets

from mlcil.interop.official import from_rdfcil
from mlcil.models.generators import Generator
from mlcil.models.inversion import BatchNormStatistics, Inversion, InversionSettings, gaussian_kernel, smoothed
from mlcil.models.network import IncrementalNetwork

Z = dfcil_fixtures.fixtures("rdfcil")
BACKBONES = {"resnet32": "resnet32_rdfcil", "resnet18": "resnet18_rdfcil"}


def network_of(backbone, sizes, image_size, dtype):
    """An untrained network with one head a session."""
    network = IncrementalNetwork({"name": BACKBONES[backbone]}, {"type": "session_linear"}, image_size)
    for size in sizes:
        network.grow(size)
    return network.to(dtype)


def filled(backbone, sizes, image_size, dtype, seed=None, heads=None):
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

BULLET = Z.bullet("backbone.<tag>")
NETWORKS = [
    (tag, backbone, index, shape, literal(rest, "["))
    for tag, backbone, inputs, rest in re.findall(
        r"`(\w+)`: (resnet\d+), F=\d+, inputs (\[.*?\]), head classes(.*?\])", BULLET
    )
    for index, shape in enumerate(literal(inputs, "["))
]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("tag", "backbone", "index", "shape", "sizes"), NETWORKS)
def test_backbone(tag, backbone, index, shape, sizes, precision):
    dtype = DTYPES[precision]
    network = filled(backbone, sizes, shape[-1], dtype)
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


def generator_of(dataset, dtype):
    """A generator whose weights follow the rule."""
    shapes = Z.shapes[f"generator.{dataset}"]
    side = Z[f"generator.{dataset}.eval.img"].shape[-1]
    generator = Generator(side, latent=shapes["generator.l1.0.weight"][1])
    parts, unknown = from_rdfcil(Z.weights(shapes))
    assert not unknown
    load_into(generator, parts["generator"])
    return generator.to(dtype)


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("dataset", "count"), Z.cases("generator.<dataset>"))
def test_generator(dataset, count, precision):
    dtype = DTYPES[precision]
    generator = generator_of(dataset, dtype)
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


def inversion_case(dataset, backbone, sizes, heads, dtype):
    """The old network with stored heads and a generator by the rule."""
    generator = generator_of(dataset, dtype)
    side = Z[f"generator.{dataset}.eval.img"].shape[-1]
    teacher = filled(backbone, sizes, side, dtype, heads=heads).eval().requires_grad_(False)
    settings = InversionSettings()
    inversion = Inversion(side, settings, teacher.backbone.mean, teacher.backbone.std)
    inversion.generator = generator
    inversion.optimizer = torch.optim.Adam(generator.parameters(), settings.lr)
    return teacher, inversion


TERMS = {"ce": "content", "cb": "balance", "pr": "smoothness", "rf": "statistics"}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("tag", "dataset", "backbone", "width", "sizes", "count", "steps"), Z.cases("inv.<tag>"))
def test_inversion(tag, dataset, backbone, width, sizes, count, steps, precision):
    dtype = DTYPES[precision]
    key = f"inv.{tag}"
    heads = [Z[f"{key}.head.classifiers.{i}.weight"] for i in range(len(sizes))]
    teacher, inversion = inversion_case(dataset, backbone, sizes, heads, dtype)
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
            Z.close(f"{key}.step{k}.{short}", losses[name], bar, scale=float(Z[f"{key}.step{k}.total"]))
            if k == 0 and short != "cb":
                Z.close(f"{key}.step{k}.{short}", losses[name], bar)
        Z.close(f"{key}.step{k}.total", sum(losses.values()), bar)
        if k == 0:
            check_norms(f"{key}.step0.grad_total", generator, "generator.", dtype)
        after = np.asarray(norm(generator.parameters()), scalar(dtype))
        Z.close(f"{key}.step{k}.param_norm_after", after, LATER)
    Z.close(f"{key}.final.conv_last.weight", generator.to_image.conv.weight, LATER)
    Z.close(f"{key}.final.gen.last_bn.running_mean", generator.to_image.norm.running_mean, LATER)


def scalar(dtype):
    """The numpy type of a torch dtype."""
    return np.float64 if dtype == torch.float64 else np.float32


def check_norms(key, module, prefix, dtype):
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
