"""KBK's head: joint attention, features of two stages, growth and freezing; the map before the last of any backbone."""

import pytest
import torch
import torch.nn.functional as F
from golden import BACKBONE, SIZE

from mlcil.models.backbones import build_backbone, give_middle
from mlcil.models.heads import KBKHead
from mlcil.models.network import IncrementalNetwork, build_network


def head_of(classes, **options):
    torch.manual_seed(0)
    head = KBKHead(8, **{"middle_channels": 4, **options}).double()
    for count in classes:
        head.grow(count)
    return head.double()


def maps_of(images=3):
    torch.manual_seed(1)
    return [torch.randn(images, 4, 4, 4, dtype=torch.float64), torch.randn(images, 8, 2, 2, dtype=torch.float64)]


def attention_by_hand(block, x_BND):
    """``x + attention(LN(x))`` of all tokens, head by head."""
    heads, dim = block.attention.num_heads, x_BND.shape[2]
    normed = F.layer_norm(x_BND, (dim,), block.norm.weight, block.norm.bias)
    q, k, v = (normed @ block.attention.in_proj_weight.T + block.attention.in_proj_bias).chunk(3, 2)
    parts = []
    for part in torch.arange(dim).chunk(heads):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / (dim // heads) ** 0.5
        parts.append(scores.softmax(2) @ v[..., part])
    return x_BND + block.attention.out_proj(torch.cat(parts, 2))


def test_class_embeddings_and_image_tokens_attend_jointly():
    head, maps = head_of([2, 3], depth=2, num_heads=4), maps_of()
    x_BND = torch.cat([head.image_tokens(maps), torch.cat(list(head.embeddings)).expand(3, -1, -1)], 1)
    for block in head.blocks:
        x_BND = attention_by_hand(block, x_BND)
    logits_BC, features_BCD = head(maps)
    torch.testing.assert_close(features_BCD, x_BND[:, 4:])
    rows = [(layer, index) for layer in head.rows for index in range(layer.out_features)]
    for c, (layer, index) in enumerate(rows):
        wanted_B = x_BND[:, 4 + c] @ layer.weight[index] + layer.bias[index]
        torch.testing.assert_close(logits_BC[:, c], wanted_B)


def test_hierarchical_tokens_are_the_sum_of_three_parts():
    head, (middle, deep) = head_of([2]), maps_of()
    pooled_BTK = middle.view(3, 4, 2, 2, 2, 2).mean((3, 5)).flatten(2).transpose(1, 2)  # 4x4 positions to 2x2
    deep_BTK = deep.flatten(2).transpose(1, 2)

    def by_hand(layers, x):
        return (x @ layers[0].weight.T + layers[0].bias).relu() @ layers[2].weight.T + layers[2].bias

    wanted = deep_BTK + by_hand(head.middle, pooled_BTK) + by_hand(head.deep, deep_BTK)
    torch.testing.assert_close(head.image_tokens([middle, deep]), wanted)
    flat = head_of([2], purify="flat")
    torch.testing.assert_close(flat.image_tokens([deep]), deep_BTK, rtol=0, atol=0)
    narrow = head_of([2], purify="flat", width=12)
    torch.testing.assert_close(narrow.image_tokens([deep]), narrow.project(deep_BTK))
    assert narrow([deep])[1].shape == (3, 2, 12)


def test_growth_keeps_old_parts_and_begins_the_unknown_row_anew():
    head, maps = head_of([2]), maps_of()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    scored = head(maps)[0]
    head.grow(3)
    head.double()
    after = head.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value) == (not name.startswith("unknown")), name
    logits_BC, features_BCD = head(maps)
    assert logits_BC.shape == (3, 5)
    assert features_BCD.shape == (3, 5, 8)
    assert head.plastic_logits(features_BCD[:, 0]).shape == (3, 4)
    assert not torch.equal(logits_BC[:, :2], scored)  # old classes attend to the new embeddings


def test_without_purification_old_logits_survive_growth():
    head, maps = head_of([2], purify="off"), maps_of()
    before = head(maps)[0]
    head.grow(3)
    head.double()
    after, features_BCD = head(maps)
    torch.testing.assert_close(after[:, :2], before, rtol=0, atol=1e-12)
    torch.testing.assert_close(features_BCD[:, 4], maps[-1].mean((2, 3)))
    assert not list(head.embeddings)


def test_embeddings_and_rows_of_old_sessions_do_not_train():
    head = head_of([2, 2, 2])
    head.freeze_old_sessions()
    frozen = {name for name, parameter in head.named_parameters() if not parameter.requires_grad}
    old = ("embeddings.0", "embeddings.1", "rows.0", "rows.1")
    assert frozen == {name for name, _ in head.named_parameters() if name.startswith(old)}
    assert len(frozen) == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"purify": "both"}, "purify is 'both'; use one of 'off', 'flat', 'hier'"),
        ({"depth": 0}, "depth is 0"),
        ({"num_heads": 3}, "width 8 is not divisible by num_heads 3"),
        ({"middle_channels": None}, "needs a backbone with maps of several stages"),
    ],
)
def test_what_the_head_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        head_of([], **options)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_a_timm_model_gives_the_map_of_an_intermediate_stage(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, 64).eval()
    images = torch.rand(2, 3, 64, 64)
    (alone,) = backbone(images)
    channels = give_middle(backbone)
    middle, last = backbone(images)
    torch.testing.assert_close(last, alone)
    assert middle.shape[1] == channels
    assert middle.shape[-1] == (4 if name == "test_vit" else 2 * last.shape[-1])
    network = IncrementalNetwork({"name": name}, {"type": "kbk", "width": 16}, 64)
    network.grow(3)
    assert network(images).logits_BC.shape == (2, 3)


@pytest.mark.parametrize("purify", ["off", "flat", "hier"])
def test_a_network_is_rebuilt_from_its_description(purify):
    torch.manual_seed(0)
    network = IncrementalNetwork(BACKBONE, {"type": "kbk", "purify": purify, "width": 16}, SIZE)
    network.grow(3)
    network.grow(2)
    again = build_network(network.spec, network.classes_per_session)
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, SIZE, SIZE)
    ours, theirs = network.eval()(images), again.eval()(images)
    assert torch.equal(ours.logits_BC, theirs.logits_BC)
    assert len(ours.maps) == 4


def test_a_backbone_with_one_map_needs_flat_features():
    backbone = {"name": "dkt", "dim": 16, "depth": 2, "heads": 4}
    with pytest.raises(ValueError, match="use purify='flat' here"):
        IncrementalNetwork(backbone, {"type": "kbk"}, 16)
    assert IncrementalNetwork(backbone, {"type": "kbk", "purify": "flat"}, 16).head.purify == "flat"
