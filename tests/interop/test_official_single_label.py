"""Names of R-DFCIL's and ABD's releases: every entry finds its place."""

import pytest
import torch
from dfcil_fixtures import fixtures

from mlcil.interop.official import from_abd, from_rdfcil
from mlcil.methods.rdfcil import RelationKD
from mlcil.models.generators import VAE, Generator
from mlcil.models.network import IncrementalNetwork


def zeros(shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def check(module, state):
    """The names and shapes are the module's."""
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in module.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet32", "resnet18"])
def test_a_lightning_module_of_rdfcil(name):
    shapes = fixtures("rdfcil").shapes
    backbone = shapes[f"{name}.backbone"]
    network = IncrementalNetwork({"name": f"{name}_rdfcil"}, {"type": "session_linear"}, 32)
    network.grow(10)
    width = network.backbone.out_channels
    head = {"head.classifiers.0.weight": [10, width]}
    generator = shapes["generator.cifar100"]
    module = {**backbone, **head, "head.classifiers.1.weight": [5, width], **shapes[f"rkd.{width}"]}
    module.update({f"model_old.{k}": v for k, v in {**backbone, **head}.items()})
    module.update({f"inversion.model.{k}": v for k, v in {**backbone, **head}.items()})
    module.update({f"inversion.{k}": v for k, v in generator.items()})
    module["inversion.smoothing.weight"] = [3, 1, 5, 5]
    parts, unknown = from_rdfcil(zeros(module))
    assert not unknown
    assert set(parts) == {"network", "relation", "teacher", "generator"}
    check(network, parts["teacher"])
    network.grow(5)
    check(network, parts["network"])
    check(RelationKD(width), parts["relation"])
    check(Generator(32), parts["generator"])


def test_an_inversion_file_of_rdfcil():
    shapes = fixtures("rdfcil").shapes
    file = {f"model.{k}": v for k, v in shapes["resnet32.backbone"].items()}
    file.update(shapes["generator.tiny-imagenet200"])
    file["smoothing.weight"] = [3, 1, 5, 5]
    parts, unknown = from_rdfcil(zeros(file))
    assert not unknown
    assert set(parts) == {"teacher", "generator"}
    check(Generator(64), parts["generator"])


@pytest.mark.parametrize("name", ["resnet32", "resnet18"])
def test_a_classifier_of_abd(name):
    shapes = fixtures("abd").shapes[name]
    head = {"type": "full_linear", "num_classes": shapes["last.bias"][0]}
    state, unknown = from_abd(zeros(shapes))
    assert not unknown
    check(IncrementalNetwork({"name": f"{name}_abd"}, head, 32), state)


@pytest.mark.parametrize(("constructor", "size"), [("CIFAR_GEN", 32), ("TINYIMNET_GEN", 64), ("IMNET_GEN", 224)])
def test_a_generator_of_abd(constructor, size):
    state, unknown = from_abd(zeros(fixtures("abd").shapes[f"generator.{constructor}"]))
    assert not unknown
    check(Generator(size), state)


def test_an_autoencoder_of_abd():
    state, unknown = from_abd(zeros(fixtures("abd").shapes["autoencoder.CIFAR_GEN"]))
    assert not unknown
    check(VAE(32), state)


def test_other_names_are_told():
    assert from_abd({"fc.weight": torch.zeros(1)}) == ({}, ["fc.weight"])
    assert from_rdfcil({"head.fc.weight": torch.zeros(1)}) == ({}, ["head.fc.weight"])
