"""KBK's formulas against numbers that are worked out here, and its switches."""

import math

import pytest
import torch
from golden import BACKBONE, BATCH, LINEAR, SIZE, SPLITS, batches
from phase_calls import before_training

from mlcil.losses.asymmetric import asymmetric_cost
from mlcil.methods import KBK
from mlcil.methods.base import Batch, SessionContext
from mlcil.methods.kbk import binary_entropy, compensation, unknown_features
from mlcil.models.network import IncrementalNetwork

PLAIN = {"recall": "off", "unknown": "off", "grad_comp": False}


def make(sessions=2, purify="hier", thresholds=(0.0, 9.0), **options):
    """The method in its last session; eps and tau of every class are given."""
    torch.manual_seed(2)
    method = KBK(IncrementalNetwork(BACKBONE, {"type": "kbk", "purify": purify, "width": 16}, SIZE), **options)
    for index in range(sessions):
        method.double()  # the teacher too
        low, high = SPLITS[index]
        method.begin_session(SessionContext(index, low, high, 2, SPLITS[-1][1], 2.0, 1.0, BATCH))
        method.scores_C, method.entropies_C = (torch.full((high,), value) for value in thresholds)
    return method.double().eval()


def batch_of(index):
    return Batch(**batches(index)[0])


def logit(*scores):
    return torch.tensor(scores, dtype=torch.float64).logit()


# -- recall --------------------------------------------------------------------------------------------------


def test_binary_entropy():
    found = binary_entropy(torch.tensor([0.5, 0.9, 0.0, 1.0], dtype=torch.float64)).tolist()
    assert found == pytest.approx([math.log(2), -0.9 * math.log(0.9) - 0.1 * math.log(0.1), 0.0, 0.0])


def test_a_label_is_recalled_where_score_and_entropy_say_so():
    scores = logit(0.95, 0.85, 0.55, 0.35, 0.05).expand(3, 5).T  # each score for three classes
    method = make(recall="class+entropy")
    method.scores_C, method.entropies_C = torch.tensor([0.9, 0.5, 0.3]), torch.tensor([0.7, 0.5, 0.2])
    # entropies: 0.199, 0.423, 0.688, 0.647, 0.199
    wanted = [[True, True, True], [False, True, False], [False] * 3, [False] * 3, [False] * 3]
    assert method.recalled(scores).tolist() == wanted
    method.recall = "class"
    assert method.recalled(scores)[:, 2].tolist() == [True, True, True, True, False]
    assert method.recalled(scores)[:, 1].tolist() == [True, True, True, False, False]
    method.recall, method.threshold = "global", 0.85 - 1e-9
    assert method.recalled(scores).sum(1).tolist() == [3, 3, 0, 0, 0]


def test_thresholds_are_means_over_the_positives_of_the_session():
    method = make(sessions=1)
    data = batches(0)
    for batch in data:
        batch["targets"][:, 1] = 0  # nobody shows class 1
    method.measure_positives(data)
    with torch.no_grad():
        logits = torch.cat([method.network(batch["inputs"]).logits_BC for batch in data])
    shown = torch.cat([batch["targets"] for batch in data])[:, 0] == 1
    score = torch.sigmoid(logits[shown, 0].float())
    entropy = -score * score.log() - (1 - score) * (1 - score).log()
    assert method.scores_C[0].item() == pytest.approx(score.mean().item())
    assert method.entropies_C[0].item() == pytest.approx(entropy.mean().item())
    for method.recall in ("class", "class+entropy"):
        sure = method.recalled(torch.tensor([[-50.0, 50.0, -50.0]]))
        assert not sure.any()  # a class without positives is never recalled, whatever its score


def test_thresholds_of_old_classes_stay_when_a_session_ends():
    method = make(sessions=2, thresholds=(0.5, 0.25))
    method.measure_positives(batches(1))
    assert method.scores_C[:3].tolist() == [0.5] * 3
    assert method.entropies_C[:3].tolist() == [0.25] * 3
    assert len(method.scores_C) == len(method.entropies_C) == 5
    assert method.entropies_C[3] != 0.25


def test_a_given_label_is_never_overruled():
    """With thresholds that every score passes, exactly the labels that nobody gave become 1."""
    method = make(recall="class", unknown="off", grad_comp=False)
    batch = batch_of(1)
    batch.targets[-1, 0], batch.targets[-1, 1] = 0, -1  # of a replayed image: absent, and not judged
    logits = method.network(batch.inputs).logits_BC
    wanted = torch.where((batch.targets < 0) & (batch.origins == 1)[:, None], 1.0, batch.targets)
    assert method.loss(batch)["loss_cls"].item() == pytest.approx(asymmetric_cost(logits, wanted).mean().item())


def test_what_a_session_begins_with_is_told():
    method = make(recall="class")
    data = batches(1)
    before_training(method, data)
    rows, fires = method.pseudo_label_decisions()
    assert fires.all()
    assert rows.tolist() == torch.cat([batch["rows"] for batch in data]).tolist()
    assert method.session_report() == {"dpl": {"reached": 3.0, "mode": "class", "per_class": [0.0] * 3}}
    assert make(recall="off").session_report() == {}


# -- features of the unknown ---------------------------------------------------------------------------------


def test_unknown_features_are_weighted_means_of_absent_ones():
    present, near, across, away = (3.0, 0.0, 1.0), (0.6, 0.8, 0.0), (0.0, 2.0, 0.0), (-1.0, 0.0, 0.0)
    features = torch.tensor([[present, near, across, away]] * 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 0, 0, -1], [1, 0, -1, 0], [0, 0, 0, -1]])
    shares = torch.tensor([[0.9, 0.2, 0.3, 0.9]] * 3, dtype=torch.float64)
    mixed, made = unknown_features(features, targets, shares, semantic=False)
    assert made.tolist() == [1, 1, 0]  # the third image shows nothing that is known
    assert mixed[0].tolist() == pytest.approx([0.4 * 0.6, 0.4 * 0.8 + 0.6 * 2, 0])
    assert mixed[1].tolist() == pytest.approx([(0.2 * 0.6 - 0.9) / 1.1, 0.2 * 0.8 / 1.1, 0])
    semantic, made = unknown_features(features, targets, shares, semantic=True)
    assert made.tolist() == [1, 1, 0]
    assert semantic[:2].tolist() == [list(near)] * 2  # cosines: > 0, 0 and < 0, which is clamped
    assert not semantic[2].any()
    semantic.sum().backward()
    assert features.grad[0].tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_likeness_is_the_mean_cosine_to_present_features():
    features = torch.tensor([[[2.0, 0, 1], [0, 1.0, 1], [1, 1, 0], [3, 4, 0]]])
    features[0, :2, 2] = 0
    shares = torch.tensor([[0.5, 0.5, 0.5, 0.25]])
    mixed, _ = unknown_features(features, torch.tensor([[1, 1, 0, 0]]), shares, semantic=True)
    weights = torch.tensor([0.5 * math.sqrt(0.5), 0.25 * (0.6 + 0.8) / 2])
    wanted = (weights[:, None] * features[0, 2:]).sum(0) / weights.sum()
    torch.testing.assert_close(mixed[0], wanted)


def test_no_likeness_makes_no_feature():
    features = torch.tensor([[[1.0, 0], [-1, 0]]])
    made, is_made = unknown_features(features, torch.tensor([[1, 0]]), torch.ones(1, 2), semantic=True)
    assert not is_made.any()
    assert not made.any()


def test_the_loss_is_over_one_more_output():
    method = make(unknown="semantic", recall="off", grad_comp=False)
    batch = batch_of(1)
    losses = method.loss(batch)
    output = method.network(batch.inputs)
    targets = method.targets(batch)
    head = method.head
    known = output.tokens_BSD[:, 3:] @ head.unknown.weight[0] + head.unknown.bias
    real = asymmetric_cost(output.logits_BC, targets).sum() + asymmetric_cost(known, torch.zeros(BATCH, 2)).sum() / 2
    assert losses["loss_cls"].item() == pytest.approx(real.item() / (BATCH * 6))
    made = []
    with_key = method.unknown_loss(output.tokens_BSD, targets)
    assert losses["loss_unknown"].item() == pytest.approx(with_key.item())
    plastic = head.plastic_logits
    head.plastic_logits = lambda features_BD: made.append(plastic(features_BD)) or made[-1]
    method.unknown_loss(output.tokens_BSD, targets)
    shown = (targets == 1).any(1)
    assert 0 < shown.sum() < BATCH
    wanted = asymmetric_cost(made[0][shown], torch.tensor([[0.0, 0, 1]]).expand(int(shown.sum()), 3)).mean()
    assert losses["loss_unknown"].item() == pytest.approx(wanted.item())


def test_draws_have_the_key_of_the_step():
    method, batch = make(), batch_of(1)
    found = []
    for key in ((1, 2), (1, 3), (1, 2)):
        method.take_key({}, key)
        found.append(method.loss(batch)["loss_unknown"].item())
    assert found[0] == found[2] != found[1]
    assert all(phase.change is not None for phase in method.phases(method.context) if hasattr(phase, "change"))


# -- compensation --------------------------------------------------------------------------------------------


def test_compensation_of_old_classes():
    scores = torch.tensor([[0.9, 0.2, 0.4, 0.7], [0.5, 0.6, 0.1, 0.7]])
    targets = torch.tensor([[1.0, 0, 1, 1], [1, 0, -1, 0]])
    found = compensation(scores, targets, [2, 1])  # session 0: two classes, session 1: one, the running one: one
    # positives of session 0: 0.1 and 0.5, mean 0.3; negatives 0.2 and 0.6, mean 0.4; of session 1 a single positive
    wanted = torch.tensor([[1 / 3, 0.5, 1, 1], [5 / 3, 1.5, 1, 1]])
    torch.testing.assert_close(found, wanted)
    assert torch.equal(compensation(scores, targets, []), torch.ones(2, 4))
    assert torch.isfinite(compensation(targets.clamp(min=0), targets, [4])).all()  # nothing to compensate


def test_compensated_costs_enter_the_loss_without_a_gradient_of_their_own():
    method, batch = make(recall="off", unknown="off"), batch_of(1)
    logits = method.network(batch.inputs).logits_BC.detach().requires_grad_()
    targets = method.targets(batch)
    weights = compensation(torch.sigmoid(logits.detach()), targets, [3])
    wanted = (asymmetric_cost(logits, targets) * weights).mean()
    assert method.loss(batch)["loss_cls"].item() == pytest.approx(wanted.item())


# -- switches, state -----------------------------------------------------------------------------------------


def test_every_switch_changes_the_loss():
    """From the plain network, one switch after the other; eps and tau let some scores pass and not others."""
    batch = batch_of(1)
    probe = make(recall="class")
    scores = torch.sigmoid(probe.teacher_output(batch.inputs).logits_BC[batch.origins == 1])
    eps = scores.float().median().item()
    tau = binary_entropy(scores[scores >= eps]).float().median().item()

    def total(purify, **options):
        return sum(make(2, purify, (eps, tau), **{**PLAIN, **options}).loss(batch).values()).item()

    totals = [
        total("off"),
        total("flat"),
        total("hier"),
        total("hier", recall="global", threshold=scores.max().item()),
        total("hier", recall="class"),
        total("hier", recall="class+entropy"),
        total("hier", recall="class+entropy", unknown="mix"),
        total("hier", recall="class+entropy", unknown="semantic"),
        total("hier", recall="class+entropy", grad_comp=True),
        total("hier", recall="class+entropy", unknown="semantic", grad_comp=True),
    ]
    assert len({round(value, 9) for value in totals}) == len(totals)


def test_what_does_not_train():
    method = make(sessions=2, unknown="off")
    frozen = {name for name, parameter in method.named_parameters() if not parameter.requires_grad}
    assert {name.removeprefix("network.head.").split(".")[0] for name in frozen} == {"embeddings", "rows", "unknown"}
    method = make(sessions=2)
    assert method.head.unknown.weight.requires_grad


def test_state_is_taken_back_and_its_bytes_are_counted():
    method = make(sessions=2, thresholds=(0.7, 0.3))
    other = make(sessions=1)
    other.load_method_state(method.method_state())
    assert torch.equal(other.scores_C, method.scores_C)
    assert torch.equal(other.entropies_C, method.entropies_C)
    found = method.state_bytes()
    assert found["statistics"] == 2 * 4 * 5  # eps and tau of five classes, float32
    assert found["teacher"] > found["parameters"] > 0
    assert make(recall="off").state_bytes()["teacher"] == 0
    assert make(recall="off").teacher is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"recall": "all"}, "recall is 'all'; use 'class"),
        ({"unknown": "some"}, "unknown is 'some'; use 'semantic'"),
        ({"purify": "off"}, r"head\.purify='off' has one feature for all classes"),
    ],
)
def test_what_the_method_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**options)


def test_another_head_is_refused():
    with pytest.raises(ValueError, match=r"network\.head\.type='kbk'"):
        KBK(IncrementalNetwork(BACKBONE, LINEAR, SIZE))
