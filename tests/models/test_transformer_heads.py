"""DKT's and DAFormer's networks: shared work against the straightforward formulation, growth, freezing, sizes."""

import copy

import pytest
import torch
from formulations import whole_block_forward, whole_sequence_forward
from timm.models.convit import GPSA

from mlcil.models.heads import DAFormerHead, DKTHead
from mlcil.models.local_attention import LocalAttention
from mlcil.models.network import IncrementalNetwork, build_network

HEADS = {
    "dkt": (lambda: DKTHead(24, (3, 3), num_heads=4), whole_sequence_forward),
    "M": (lambda: DAFormerHead(24, (3, 3), "M", num_heads=4, drop_path=0.0), whole_block_forward),
    "S": (lambda: DAFormerHead(24, (3, 3), "S", num_heads=4, drop_path=0.0), whole_block_forward),
}
SMALL = {"dim": 24, "depth": 2, "heads": 4}


def head_of(kind, classes):
    torch.manual_seed(0)
    head = HEADS[kind][0]()
    for count in classes:
        head.grow(count)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head.double()


def network(name, classes=(3, 2), image_size=32, backbone=None, **head):
    torch.manual_seed(0)
    spec = {
        "backbone": {"name": name, **SMALL, **(backbone or {})},
        "head": {"type": name, "num_heads": 4, **head},
        "image_size": image_size,
    }
    return build_network(spec, list(classes))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("classes", [[3], [2, 2], [4, 1, 3], [1, 1, 1, 1, 1]])
def test_same_numbers_and_gradients_as_the_straightforward_formulation(kind, classes):
    head = head_of(kind, classes)
    if head_divergence := getattr(head, "divergence", None):
        head_divergence.requires_grad_(False)
    maps = torch.randn(5, 24, 3, 3, dtype=torch.float64)
    results = []
    for forward in (lambda m: head(m)[:2], lambda m: HEADS[kind][1](head, m)):
        head.zero_grad()
        logits, tokens = forward(maps)
        (logits.square().sum() + tokens.sin().sum()).backward()
        gradients = [p.grad.clone() for p in head.parameters() if p.grad is not None]
        results.append((logits, tokens, gradients))
    (logits, tokens, gradients), (logits_ref, tokens_ref, gradients_ref) = results
    torch.testing.assert_close(logits, logits_ref, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tokens, tokens_ref, rtol=1e-10, atol=1e-10)
    assert len(gradients) == len(gradients_ref)
    for ours, reference in zip(gradients, gradients_ref, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_drop_path_of_the_dual_block_has_the_same_draws_as_the_straightforward_block():
    head = DAFormerHead(24, (3, 3), "M", num_heads=4, drop_path=0.5).double()
    for _ in range(3):
        head.grow(2)
    maps = torch.randn(6, 24, 3, 3, dtype=torch.float64)
    head.train()
    torch.manual_seed(5)
    ours = head(maps)[0]
    torch.manual_seed(5)
    torch.testing.assert_close(ours, whole_block_forward(head, maps)[0], rtol=1e-10, atol=1e-10)


def test_queries_keys_and_values_are_projected_once_for_all_sessions():
    head = head_of("M", [2] * 6)
    calls = []
    for name in ("q", "k", "v"):
        getattr(head.block.attention, name).register_forward_hook(lambda *_, name=name: calls.append(name))
    head(torch.randn(2, 24, 3, 3, dtype=torch.float64))
    assert sorted(calls) == ["k", "q", "v"]


def test_position_map_once_a_batch_gives_the_numbers_of_timm():
    torch.manual_seed(0)
    ours = LocalAttention(24, 4, 9).double()
    reference = GPSA(24, 4).double()
    reference.load_state_dict(ours.state_dict())
    for parameter in (ours.pos_proj.weight, reference.pos_proj.weight):
        parameter.data.mul_(0.3)
    x = torch.randn(5, 9, 24, dtype=torch.float64)
    reference.rel_indices = reference.get_rel_indices(9).double()
    torch.testing.assert_close(ours(x), reference(x), rtol=1e-12, atol=1e-12)


def test_local_attention_starts_at_the_neighbours():
    attention = LocalAttention(24, 4, 16)
    torch.testing.assert_close(attention.v.weight, torch.eye(24))
    assert (attention.gating_param == 1).all()
    # an even kernel side of 2: the heads look half a step around the query, (dx, dy, d^2)
    expected = torch.tensor([[-1.0, -1, -1], [-1, 1, -1], [1, -1, -1], [1, 1, -1]])
    assert {tuple(row) for row in attention.pos_proj.weight.tolist()} == {tuple(row) for row in expected.tolist()}


@pytest.mark.parametrize("name", ["dkt", "daformer"])
def test_an_image_does_not_depend_on_its_batch(name):
    model = network(name).eval()
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        together, alone = model(images), model(images[:1])
    assert together.logits_BC.shape == (3, 5)
    torch.testing.assert_close(together.logits_BC[:1], alone.logits_BC, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dkt", "daformer"])
def test_the_spec_rebuilds_the_network(name):
    model = network(name, classes=(4, 2, 2))
    again = build_network(model.spec, model.classes_per_session)
    again.load_state_dict(model.state_dict(), strict=True)


def test_features_are_the_heads_embedding():
    images = torch.rand(2, 3, 32, 32)
    for name, width in (("dkt", 24), ("daformer", 3 * 24)):
        assert network(name, (2, 2, 2)).eval()(images).features_BK.shape == (2, width)


def test_the_duplex_classifier_merges_and_starts_anew():
    head = DKTHead(24, (8, 8), num_heads=4)
    for count in (5, 2):
        head.grow(count)
    old, new = copy.deepcopy(head.stability), copy.deepcopy(head.plasticity)
    head.grow(3)
    torch.testing.assert_close(head.stability.linear.weight, torch.cat([old.linear.weight, new.linear.weight]))
    torch.testing.assert_close(head.stability.norm.weight, old.norm.weight)
    assert not torch.equal(head.stability.linear.bias[:5], old.linear.bias)  # the released code draws them anew
    assert head.plasticity.linear.out_features == 3
    assert len(head.tokens) == 3


def test_copied_biases():
    head = DKTHead(24, (8, 8), num_heads=4, copy_bias=True)
    for count in (5, 2):
        head.grow(count)
    biases = torch.cat([head.stability.linear.bias, head.plasticity.linear.bias]).detach().clone()
    head.grow(3)
    torch.testing.assert_close(head.stability.linear.bias, biases)


def test_editions_have_a_key_a_session_or_one():
    assert [len(network("daformer", (2, 2, 2), edition=e).head.keys) for e in "MS"] == [3, 1]
    with pytest.raises(ValueError, match="edition 'X' is unknown"):
        network("daformer", edition="X")


def test_initial_values_of_the_dual_block():
    torch.manual_seed(0)
    block = DAFormerHead(96, (3, 3), "M", num_heads=4).block
    for linear in (block.attention.q, block.attention.k, block.attention.v, block.mlp.fc1, block.mlp.fc2):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert linear.bias is None or linear.bias.abs().max().item() == 0


def test_later_keys_start_uniform():
    head = network("daformer", (2, 2)).head
    assert (head.keys[0].weight != 0).any()
    assert (head.keys[1].weight == 0).all()
    assert (head.keys[1].bias == 0).all()


def test_external_keys_refuse_another_image_size():
    with pytest.raises(ValueError, match="256 positions but the external keys 64"):
        network("daformer")(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["dkt", "daformer"])
def test_a_batch_of_one_image_trains(name):
    loss = network(name).train()(torch.rand(1, 3, 32, 32)).logits_BC.square().sum()
    loss.backward()
    assert torch.isfinite(loss)


def test_unknown_stem():
    with pytest.raises(ValueError, match="stem 'mnist' is unknown"):
        network("dkt", backbone={"stem": "mnist"})


def test_imagenet_sizes():
    model = network("dkt", (2,), 224, {"stem": "imagenet"}).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 224, 224)).maps[-1].shape == (1, 24, 14, 14)
    model = network("daformer", (2,), 224, {"patch": 16}).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 224, 224)).maps[-1].shape == (1, 24, 14, 14)
    assert model.head.positions == 196


def test_published_sizes():
    """Parameters of the released models, less what no forward pass uses (a second stem; a projection)."""
    torch.manual_seed(0)
    released = IncrementalNetwork({"name": "dkt"}, {"type": "dkt"}, 32)
    released.grow(10)
    unused_stem = (3 * 3 * 3 * 32 + 32) + 2 * 32 + (32 * 384 * 4 * 4 + 384)
    assert sum(p.numel() for p in released.parameters()) == 11_034_250 - unused_stem
    released = IncrementalNetwork({"name": "daformer"}, {"type": "daformer"}, 32)
    released.grow(10)
    unused_projection = 384 * 384 + 384
    first = sum(p.numel() for p in released.parameters())
    assert first == 10_690_294 - unused_projection
    released.grow(10)
    assert sum(p.numel() for p in released.parameters()) == first + 6_730 + 5_003


def test_pixels_are_normalised_inside():
    model = network("dkt").backbone
    images = torch.rand(2, 3, 32, 32)
    mean = torch.tensor([0.5071, 0.4867, 0.4408])[None, :, None, None]
    std = torch.tensor([0.2675, 0.2565, 0.2761])[None, :, None, None]
    torch.testing.assert_close(model.normalise(images), (images - mean) / std)
