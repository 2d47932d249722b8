"""MULTI-LANE's lanes: sizes, the same numbers as whole blocks give, and scores that later sessions leave alone."""

import pytest
import torch
import torch.nn.functional as F
from golden import BACKBONE

from mlcil.models.network import IncrementalNetwork, build_network

SMALL = {"name": "vit_tiny_patch16_224", "trunk": {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}}
HEAD = {"type": "lanes", "tokens": 4, "prompts": 3, "prompt_blocks": 2}
BASE = {"name": "vit_base_patch16_224"}


def network(classes=(3, 2), backbone=SMALL, image_size=32, **head):
    torch.manual_seed(0)
    spec = {"backbone": backbone, "head": {**HEAD, **head}, "image_size": image_size, "frozen_backbone": True}
    return build_network(spec, list(classes)).eval()


def whole_lane(trunk, lane, x_BTD):
    """A lane by whole modules: prompts in front of keys and values, all tokens ask, and only the first is kept."""
    token_BD = lane.tokens[0].expand(len(x_BTD), -1)
    for number, block in enumerate(trunk.blocks):
        y_BTD = block.norm1(x_BTD[:, trunk.num_prefix_tokens :])
        weights = (block.norm1(lane.tokens[1:]) @ y_BTD.mT / lane.tokens.shape[1] ** 0.5).softmax(-1)
        tokens = torch.cat([block.norm1(token_BD)[:, None], weights @ y_BTD], 1)
        q, k, v = block.attn.qkv(tokens).chunk(3, -1)
        if number < len(lane.prompts) // 2:
            keys, values = (part.expand(len(k), -1, -1) for part in lane.prompts[2 * number : 2 * number + 2])
            k, v = torch.cat([k, keys], 1), torch.cat([v, values], 1)
        heads = [
            ((a @ b.mT) * block.attn.scale).softmax(-1) @ c
            for a, b, c in zip(*(part.chunk(block.attn.num_heads, -1) for part in (q, k, v)), strict=True)
        ]
        token_BD = token_BD + block.attn.proj(torch.cat(heads, -1))[:, 0]
        token_BD = token_BD + block.mlp(block.norm2(token_BD))
        x_BTD = block(x_BTD)
    return F.normalize(trunk.norm(token_BD), dim=1)


@pytest.mark.parametrize("prompts", [3, 0])
def test_the_same_numbers_as_whole_modules(prompts):
    net = network(prompts=prompts).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    trunk = net.backbone.trunk
    with torch.no_grad():
        x_BTD = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed((images - net.backbone.mean) / net.backbone.std)))
        logits = [
            layer(whole_lane(trunk, lane, x_BTD))
            for lane, layer in zip(net.head.lanes, net.head.classifiers, strict=True)
        ]
        output = net(images)
    torch.testing.assert_close(output.logits_BC, torch.cat(logits, 1), rtol=1e-10, atol=1e-10)
    features = trunk.forward_features((images - net.backbone.mean) / net.backbone.std)
    torch.testing.assert_close(output.features_BK, features[:, 1:].mean(1), rtol=1e-10, atol=1e-10)


def test_a_lane_begins_as_a_copy_and_rows_are_orthogonal():
    net = network()
    first, second = net.head.lanes
    for name, value in first.named_parameters():
        assert torch.equal(value, dict(second.named_parameters())[name])
        assert value is not dict(second.named_parameters())[name]
    for rows in (first.tokens, first.prompts.flatten(0, 1)):
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-5)


def test_only_the_newest_lane_learns_and_runs_in_training():
    net = network().train().requires_grad_(True)
    net.head.freeze_old_sessions()
    logits_BC = net(torch.rand(2, 3, 32, 32)).logits_BC
    assert not logits_BC[:, :3].any()
    logits_BC.square().sum().backward()
    learned = {name.split(".")[2] for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert learned == {"1"}
    assert all("head." in name for name, p in net.named_parameters() if p.requires_grad)


def base_network():
    """ViT-B/16 without the time that its initial weights take."""
    with torch.device("meta"):
        net = network((3,), BASE, 224)
    net.to_empty(device="cpu")
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        value.data.fill_(1) if "norm" in name or name.endswith("std") else value.data.uniform_(-0.03, 0.03)
    return net


@pytest.mark.parametrize(("made", "size"), [(lambda: network((3,)), 32), (base_network, 224)], ids=["tiny", "base"])
def test_a_session_changes_no_bit_of_old_scores(made, size):
    net = made()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        before_BC = net(images).logits_BC
    net.grow(2)
    net.train().requires_grad_(True)
    net.head.freeze_old_sessions()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.03)
    net(images).logits_BC.sum().backward()
    optimizer.step()
    net.eval()
    with torch.no_grad():
        after_BC = net(images).logits_BC
    assert after_BC.shape == (2, 5)
    assert torch.equal(after_BC[:, :3], before_BC)


def test_sizes_of_the_paper():
    with torch.device("meta"):
        net = network((17,), BASE, 224, tokens=10, prompts=10, prompt_blocks=5)
    assert sum(p.numel() for p in net.head.lanes.parameters()) == 84_480
    with torch.device("meta"):
        maps = net.backbone(torch.zeros(2, 3, 224, 224))
        logits_BC, _ = net.head(maps, net.backbone)
    assert logits_BC.shape == (2, 17)
    assert [tuple(m.shape) for m in maps] == [(2, 768, 14, 14)] * 13


def test_what_a_lane_cannot_run_on():
    with pytest.raises(ValueError, match=r"one of timm's vit_\* models as network\.backbone, not TResNet"):
        IncrementalNetwork(BACKBONE, HEAD, 32)
    with pytest.raises(ValueError, match="not resnet18"):
        IncrementalNetwork({"name": "resnet18"}, HEAD, 32)
    with pytest.raises(ValueError, match="prompt_blocks is 4; the backbone has 3 blocks"):
        network(prompt_blocks=4)
