"""The shared formulation of cross-attention against the attention repeated per session; growth and freezing."""

import pytest
import torch
from formulations import per_session_forward

from mlcil.models.heads import ICAHead
from mlcil.models.heads.ica import resize_pos_embed


def head_of(classes, dim=24, heads=4, grid=(3, 3), **options):
    torch.manual_seed(0)
    head = ICAHead(8, grid, dim, heads, **options).double()
    for count in classes:
        head.grow(count)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head.double()


@pytest.mark.parametrize("classes", [[3], [2, 2], [4, 1, 3], [1, 1, 1, 1, 1]])
def test_same_numbers_and_gradients_as_the_per_session_formulation(classes):
    head = head_of(classes)
    maps = torch.randn(5, 8, 3, 3, dtype=torch.float64)
    results = []
    for forward in (head, lambda m: per_session_forward(head, m)):
        head.zero_grad()
        logits, tokens = forward(maps)
        (logits.square().sum() + tokens.sin().sum()).backward()
        results.append((logits, tokens, [p.grad.clone() for p in head.parameters()]))
    (logits, tokens, gradients), (logits_ref, tokens_ref, gradients_ref) = results
    torch.testing.assert_close(logits, logits_ref, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tokens, tokens_ref, rtol=1e-10, atol=1e-10)
    for ours, reference in zip(gradients, gradients_ref, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_a_new_session_leaves_the_old_logits_alone():
    head = head_of([3, 2])
    maps = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    before = head(maps)[0]
    head.grow(4)
    after = head(maps)[0]
    assert after.shape == (2, 9)
    torch.testing.assert_close(after[:, :5], before, rtol=0, atol=1e-12)


def test_initial_values_of_first_and_later_sessions():
    torch.manual_seed(0)
    head = ICAHead(8, (7, 7), 384, 8)
    head.grow(50)
    head.grow(50)
    assert head.classifiers[0].linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    bound = 384**-0.5
    assert head.classifiers[1].linear.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    for token in (head.kt_token, *head.kr_tokens, head.pos_embed):
        assert token.std().item() == pytest.approx(0.02, rel=0.15)
    assert head.block.mlp[0].weight.std().item() == pytest.approx(0.01, rel=0.05)
    for linear in (head.block.attention.proj, head.block.mlp[0], head.block.mlp[2]):
        assert linear.bias.abs().max().item() == 0


def test_freezing_leaves_the_newest_session_and_the_shared_parts():
    head = head_of([2, 2, 2])
    head.freeze_old_sessions()
    frozen = {name for name, p in head.named_parameters() if not p.requires_grad}
    old = ("kr_tokens.0", "kr_tokens.1", "classifiers.0", "classifiers.1")
    assert frozen == {name for name, _ in head.named_parameters() if name.startswith(old)}


def test_maps_of_another_size_get_an_interpolated_position():
    head = head_of([2])
    assert head(torch.randn(1, 8, 5, 4, dtype=torch.float64))[0].shape == (1, 2)
    pos = torch.randn(1, 9, 4)
    assert resize_pos_embed(pos, (3, 3), (3, 3)) is pos
    assert resize_pos_embed(pos, (3, 3), (6, 5)).shape == (1, 30, 4)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="not divisible"):
        ICAHead(8, (3, 3), embed_dim=10, num_heads=4)
