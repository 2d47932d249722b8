"""Case h: the layers one by one."""

import numpy as np
import torch
from krt_fixtures import each
from torch import nn

from mlcil.interop.official import from_official
from mlcil.models.heads.ica import TokenBlock
from mlcil.models.tresnet import BasicBlock, BlurDownsample, Bottleneck, ConvABN, SqueezeExcite, space_to_depth

ATOL = 1e-5


def load_block(Z, block: nn.Module, key: str, official_prefix: str, our_prefix: str) -> nn.Module:
    """Load a part of a network through the name table by giving it a place in one."""
    ours, unknown = from_official({f"{official_prefix}.{k}": v for k, v in Z.weights(key, Z.seeds[0]).items()})
    assert not unknown
    block.load_state_dict({k.removeprefix(our_prefix + "."): v for k, v in ours.items()}, strict=True)
    return block


@each()
def test_space_to_depth(Z):
    block = round(Z["h/s2d_in"].shape[2] // Z["h/s2d_out"].shape[2])
    np.testing.assert_array_equal(space_to_depth(Z.tensor("h/s2d_in"), block), Z["h/s2d_out"])


@each()
def test_blur_downsample(Z):
    np.testing.assert_allclose(BlurDownsample()(Z.tensor("h/aa_in")), Z["h/aa_out"], atol=ATOL)


@each()
@torch.no_grad()
def test_squeeze_excite(Z):
    channels, reduced = Z["h/se_in"].shape[1], Z.shapes["h_se"]["fc1.weight"][0]
    se = SqueezeExcite(channels, reduced)
    given = Z.weights("h_se", Z.seeds[0])
    se.load_state_dict({k.replace("fc1", "reduce").replace("fc2", "expand"): v for k, v in given.items()})
    np.testing.assert_allclose(se(Z.tensor("h/se_in")), Z["h/se_out"], atol=ATOL)


def conv_abn(Z):
    out, inp, kernel, _ = Z.shapes["h_conv_abn"]["0.weight"]
    layer = ConvABN(inp, out, kernel, slope=1e-3, abn="torch")
    given = Z.weights("h_conv_abn", Z.seeds[0])
    layer.load_state_dict({("conv." if k[0] == "0" else "abn.") + k[2:]: v for k, v in given.items()})
    return layer


@each()
@torch.no_grad()
def test_conv_abn_in_evaluation(Z):
    np.testing.assert_allclose(conv_abn(Z).eval()(Z.tensor("h/conv_abn_in")), Z["h/conv_abn_out_eval"], atol=ATOL)


@each()
def test_conv_abn_in_training_with_gradients_and_statistics(Z):
    layer = conv_abn(Z).train()
    x = Z.tensor("h/conv_abn_in").requires_grad_(True)
    y = layer(x)
    y.backward(Z.tensor("h/conv_abn_cotangent"))
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


@each()
@torch.no_grad()
def test_basic_block_with_stride_shortcut_and_gates(Z):
    planes, inp = Z.shapes["h_basic_stride2"]["conv1.0.0.weight"][:2]
    block = load_block(Z, BasicBlock(inp, planes, 2, abn="torch"), "h_basic_stride2", "layer2.0", "backbone.stages.1.0")
    np.testing.assert_allclose(block.eval()(Z.tensor("h/basic_in")), Z["h/basic_out"], atol=ATOL)


@each()
@torch.no_grad()
def test_bottleneck_with_stride_shortcut_and_gates(Z):
    planes, inp = Z.shapes["h_bottleneck_stride2"]["conv1.0.weight"][:2]
    block = Bottleneck(inp, planes, 2, abn="torch")
    load_block(Z, block, "h_bottleneck_stride2", "layer3.0", "backbone.stages.2.0")
    np.testing.assert_allclose(block.eval()(Z.tensor("h/bottleneck_in")), Z["h/bottleneck_out"], atol=ATOL)


@each()
@torch.no_grad()
def test_token_block_and_its_attention(Z):
    """The official block gets one sequence [KT; KR; patches]; ours gets its parts, image by image."""
    sequence = Z.tensor("h/ca_in")
    heads = Z["h/ca_attn"].shape[1]
    block = TokenBlock(sequence.shape[-1], heads)
    load_block(Z, block, "h_ca_block", "tab", "head.block")
    for i, x in enumerate(sequence):
        kt, kr, patches = x[0], x[1:2], x[None, 2:]
        np.testing.assert_allclose(block(kt, kr, patches)[0], Z["h/ca_out"][i], atol=ATOL)
        shared = block.norm1(torch.cat([kt.expand(1, 1, -1), patches], 1))
        weights_BHT, gate_BSH = block.attention.weights(block.norm1(kt), block.norm1(kr), shared)
        gate = gate_BSH[0, 0][:, None]
        mixed = weights_BHT[0] * (1 - gate)
        ours = torch.cat([mixed[:, :1], gate, mixed[:, 1:]], 1)  # official order: KT, KR, patches
        np.testing.assert_allclose(ours, Z["h/ca_attn"][i, :, 0], atol=ATOL)
