"""Case h: the layers one by one."""

import numpy as np
import parity_fixtures
import torch
from torch import nn

from mlcil.interop.official import from_official
from mlcil.models.heads.ica import TokenBlock
from mlcil.models.tresnet import BasicBlock, BlurDownsample, Bottleneck, ConvABN, SqueezeExcite, space_to_depth

Z = parity_fixtures.load()
SHAPES = parity_fixtures.shapes()
ATOL = 1e-5


def tensor(key):
    return torch.from_numpy(Z[key])


def weights(key):
    made = parity_fixtures.make_weights(SHAPES[key], int(Z["meta/seed_A"]))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in made.items()}


def load_block(block: nn.Module, key: str, official_prefix: str, our_prefix: str) -> nn.Module:
    """Load a part of a network through the name table by giving it a place in one."""
    ours, unknown = from_official({f"{official_prefix}.{k}": v for k, v in weights(key).items()})
    assert not unknown
    block.load_state_dict({k.removeprefix(our_prefix + "."): v for k, v in ours.items()}, strict=True)
    return block


def test_space_to_depth():
    block = round(Z["h/s2d_in"].shape[2] // Z["h/s2d_out"].shape[2])
    np.testing.assert_array_equal(space_to_depth(tensor("h/s2d_in"), block), Z["h/s2d_out"])


def test_blur_downsample():
    np.testing.assert_allclose(BlurDownsample()(tensor("h/aa_in")), Z["h/aa_out"], atol=ATOL)


@torch.no_grad()
def test_squeeze_excite():
    channels, reduced = Z["h/se_in"].shape[1], SHAPES["h_se"]["fc1.weight"][0]
    se = SqueezeExcite(channels, reduced)
    given = weights("h_se")
    se.load_state_dict({k.replace("fc1", "reduce").replace("fc2", "expand"): v for k, v in given.items()})
    np.testing.assert_allclose(se(tensor("h/se_in")), Z["h/se_out"], atol=ATOL)


def conv_abn():
    out, inp, kernel, _ = SHAPES["h_conv_abn"]["0.weight"]
    layer = ConvABN(inp, out, kernel, slope=1e-3, abn="torch")
    given = weights("h_conv_abn")
    layer.load_state_dict({("conv." if k[0] == "0" else "abn.") + k[2:]: v for k, v in given.items()})
    return layer


@torch.no_grad()
def test_conv_abn_in_evaluation():
    np.testing.assert_allclose(conv_abn().eval()(tensor("h/conv_abn_in")), Z["h/conv_abn_out_eval"], atol=ATOL)


def test_conv_abn_in_training_with_gradients_and_statistics():
    layer = conv_abn().train()
    x = tensor("h/conv_abn_in").requires_grad_(True)
    y = layer(x)
    y.backward(tensor("h/conv_abn_cotangent"))
    np.testing.assert_allclose(y.detach(), Z["h/conv_abn_out_train"], atol=ATOL)
    np.testing.assert_allclose(x.grad, Z["h/conv_abn_grad_in"], atol=ATOL)
    np.testing.assert_allclose(layer.abn.running_mean, Z["h/conv_abn_after_train/1.running_mean"], atol=ATOL)
    np.testing.assert_allclose(layer.abn.running_var, Z["h/conv_abn_after_train/1.running_var"], atol=ATOL)
    for name, parameter in (
        ("0.weight", layer.conv.weight),
        ("1.weight", layer.abn.weight),
        ("1.bias", layer.abn.bias),
    ):
        expected = Z[f"h/conv_abn_grad/{name}"]
        # fp32 gradients of the package carry the noise of its recomputation: relative to the largest entry
        np.testing.assert_allclose(parameter.grad, expected, rtol=5e-3, atol=ATOL * max(1.0, np.abs(expected).max()))


@torch.no_grad()
def test_basic_block_with_stride_shortcut_and_gates():
    planes, inp = SHAPES["h_basic_stride2"]["conv1.0.0.weight"][:2]
    block = load_block(BasicBlock(inp, planes, 2, abn="torch"), "h_basic_stride2", "layer2.0", "backbone.stages.1.0")
    np.testing.assert_allclose(block.eval()(tensor("h/basic_in")), Z["h/basic_out"], atol=ATOL)


@torch.no_grad()
def test_bottleneck_with_stride_shortcut_and_gates():
    planes, inp = SHAPES["h_bottleneck_stride2"]["conv1.0.weight"][:2]
    block = Bottleneck(inp, planes, 2, abn="torch")
    load_block(block, "h_bottleneck_stride2", "layer3.0", "backbone.stages.2.0")
    np.testing.assert_allclose(block.eval()(tensor("h/bottleneck_in")), Z["h/bottleneck_out"], atol=ATOL)


@torch.no_grad()
def test_token_block_and_its_attention():
    """The official block gets one sequence [KT; KR; patches]; ours gets its parts, image by image."""
    sequence = tensor("h/ca_in")
    heads = Z["h/ca_attn"].shape[1]
    block = TokenBlock(sequence.shape[-1], heads)
    load_block(block, "h_ca_block", "tab", "head.block")
    for i, x in enumerate(sequence):
        kt, kr, patches = x[0], x[1:2], x[None, 2:]
        np.testing.assert_allclose(block(kt, kr, patches)[0], Z["h/ca_out"][i], atol=ATOL)
        shared = block.norm1(torch.cat([kt.expand(1, 1, -1), patches], 1))
        weights_BHT, gate_BSH = block.attention.weights(block.norm1(kt), block.norm1(kr), shared)
        gate = gate_BSH[0, 0][:, None]
        mixed = weights_BHT[0] * (1 - gate)
        ours = torch.cat([mixed[:, :1], gate, mixed[:, 1:]], 1)  # official order: KT, KR, patches
        np.testing.assert_allclose(ours, Z["h/ca_attn"][i, :, 0], atol=ATOL)
