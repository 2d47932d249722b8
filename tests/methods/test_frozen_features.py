"""Frozen rows, ridge regression and kept features against what can be computed at once, and what never may change."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mlcil.errors import UserError
from mlcil.evaluation.multilabel import average_precision
from mlcil.methods import FrozenRows, KeptFeatures, Ridge
from mlcil.methods.base import SessionContext
from mlcil.methods.ridge import STRENGTHS, Sums, solve
from mlcil.models import network as networks
from mlcil.models.network import IncrementalNetwork, Maps

K, SPLITS = 6, ((0, 3), (3, 5), (5, 7))
SESSION_LINEAR, LINEAR = {"type": "session_linear", "bias": True}, {"type": "linear"}


class Identity(nn.Module):
    """A backbone whose maps are given."""

    out_channels = K

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return [images]


@pytest.fixture(autouse=True)
def _backbone(monkeypatch):
    monkeypatch.setattr(networks, "build_backbone", lambda image_size, **options: Identity())


def session(index, images=40, seed=0):
    """Features and all labels of a session's images."""
    rng = np.random.default_rng((seed, index))
    truth_NC = (rng.random((images, 7)) < 0.3).astype(np.float32)
    mixing_CK = np.random.default_rng(99).normal(size=(7, K))
    features = truth_NC @ mixing_CK + 0.3 * rng.normal(size=(images, K)) + 1
    return features.astype(np.float32), truth_NC


def batches(index, features, truth_NC, size=16, dtype=torch.float64):
    low, high = SPLITS[index]
    targets = torch.from_numpy(truth_NC[:, :high].copy())
    targets[:, :low] = -1
    rows = torch.arange(len(features)) + 1000 * index
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        maps = torch.from_numpy(features[part, :, None, None]).to(dtype)
        origins = torch.full((len(maps),), index)
        yield {"maps": maps, "targets": targets[part], "rows": rows[part], "origins": origins}


def begin(method, index):
    low, high = SPLITS[index]
    method.begin_session(SessionContext(index, low, high, 2, 7, None, 1.0, 16))
    return method.double()


def descend(method, batches):
    """A step of gradient descent a batch."""
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1)
    for batch in batches:
        optimiser.zero_grad()
        method(**method.data_preprocessor(batch), mode="loss")["loss_cls"].backward()
        optimiser.step()


def walk(method, sessions=3, **options):
    for index in range(sessions):
        begin(method, index)
        features, truth = session(index, **options)
        method.fit(list(batches(index, features, truth)))
    return method


def make(cls, head=None, seed=0, **options):
    torch.manual_seed(seed)
    head = head or (LINEAR if cls is KeptFeatures else SESSION_LINEAR)
    return cls(IncrementalNetwork({"name": "identity"}, head, 8, frozen_backbone=True), **options)


def logits(method, features):
    with torch.no_grad():
        return method.eval().network(Maps.of(torch.from_numpy(features[:, :, None, None]).double())).logits_BC


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 40), st.floats(1e-2, 1e3))
def test_sessions_of_ridge_are_one_ridge_regression(seed, images, strength):
    """Without pseudo-labels and weights: the rows that all images at once would give."""
    method = walk(make(Ridge, old_rows="refreshed", strength=strength), images=images, seed=seed)
    data = [session(index, images, seed) for index in range(3)]
    x = np.concatenate([features for features, _ in data]).astype(np.float64)
    y = np.concatenate([truth for _, truth in data]).astype(np.float64)
    for index, (low, _) in enumerate(SPLITS):
        y[index * images : (index + 1) * images, :low] = 0  # old labels on new images: absent
        y[index * images : (index + 1) * images, SPLITS[index][1] :] = 0
    centred = x - x.mean(0)
    rows = np.linalg.solve(centred.T @ centred + strength * np.eye(K), centred.T @ y).T
    scores = centred @ rows.T + y.mean(0)
    scale, shift = method.calibration_C2.numpy().T
    np.testing.assert_allclose((logits(method, x.astype(np.float32)).numpy() - shift) / scale, scores, atol=1e-8)


def test_ridge_leaves_out_each_image_as_if_it_were_not_there():
    features, truth = session(0, 12)
    x, y = torch.from_numpy(features).double(), torch.from_numpy(truth[:, :3]).double()
    omega = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    for strength in (0.5, 20.0):
        found = solve(Sums.of(x, y.clamp(min=0), omega), x, y, omega, strength)
        for c in range(3):
            for n in range(12):
                kept = [i for i in range(12) if i != n]
                part = solve(
                    Sums.of(x[kept], y[kept, c : c + 1], omega[kept]),
                    x[kept],
                    y[kept, c : c + 1],
                    omega[kept],
                    strength,
                )
                wanted = x[n] @ part.rows_MH[0] + part.intercept_M[0]
                assert found.held_out_NM[n, c].item() == pytest.approx(wanted.item(), abs=1e-9)


def test_an_unknown_label_says_nothing():
    features, truth = session(0, 30)
    x, y = torch.from_numpy(features).double(), torch.from_numpy(truth[:, :1]).double()
    y[[3, 8]] = -1
    known = [i for i in range(30) if i not in (3, 8)]
    ones = torch.ones(30, dtype=torch.float64)
    found = solve(Sums.of(x, y.clamp(min=0), ones), x, y, ones, 1.0)
    alone = solve(Sums.of(x[known], y[known], ones[known]), x[known], y[known], ones[known], 1.0)
    torch.testing.assert_close(found.rows_MH, alone.rows_MH, rtol=1e-4, atol=1e-5)


def test_photos_of_new_labels_alone_are_told_from_each_other():
    """Of each photo only its own label is known; rows that tell new photos from earlier ones meet all that is known."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (6, 120))
    centres[1:] = 0.5 * centres[1:] + 0.6 * centres[:1]  # new photos have something in common
    centres[0] = 0

    def photos(kinds):
        return torch.from_numpy(centres[kinds] + rng.normal(0, 1, (len(kinds), 120)))

    kinds = np.repeat(np.arange(1, 6), 20)
    x, earlier, others = photos(kinds), photos(np.zeros(80, int)), photos(kinds)
    y = torch.from_numpy(np.where(kinds[:, None] == np.arange(1, 6), 1.0, -1.0))
    past = Sums.of(earlier, torch.zeros(80, 0).double(), torch.ones(80).double()).negatives(1.0)
    ones = torch.ones(100, dtype=torch.float64)
    found = solve(Sums.of(x, y.clamp(min=0), ones).plus(past), x, y, ones, None)
    ap = average_precision((others @ found.rows_MH.T).numpy(), (y == 1).numpy().astype(int))
    assert np.nanmean(ap) > 0.95  # 0.88 with the strength that the known labels alone would choose


def test_rows_keep_half_of_what_can_be_told():
    """Where nearly all images show one of the classes, constant scores are within a deviation of the least error."""
    rng = np.random.default_rng(0)
    shown = rng.random((150, 6)) < np.array([0.9, 0.06, 0.06, 0.06, 0.06, 0.06])
    x = torch.from_numpy(shown[:, 1:] @ rng.normal(0, 0.2, (5, 120)) + rng.normal(0, 1, (150, 120)))
    y, ones = torch.from_numpy(shown).double(), torch.ones(150, dtype=torch.float64)
    found, *tried = [solve(Sums.of(x, y, ones), x, y, ones, strength) for strength in (None, *STRENGTHS)]
    errors = [solution.error for solution in tried]
    chosen = STRENGTHS.index(found.strength)
    halfway = (min(errors) + errors[-1]) / 2
    assert found.error == pytest.approx(errors[chosen])
    assert errors[chosen] <= halfway < errors[chosen + 1]


@pytest.mark.parametrize("cls", [Ridge, FrozenRows])
def test_old_scores_stay_the_same_bits(cls):
    method, features = make(cls), session(5, 50)[0]
    before = []
    for index, (_, high) in enumerate(SPLITS):
        begin(method, index).float()
        if cls is Ridge:
            method.fit(list(batches(index, *session(index), dtype=torch.float32)))
        else:
            descend(method, batches(index, *session(index), dtype=torch.float32))
        with torch.no_grad():
            now = method.eval().network(Maps.of(torch.from_numpy(features[:, :, None, None]))).logits_BC
        assert now.shape[1] == high
        for old in before:
            assert torch.equal(now[:, : old.shape[1]], old)
        before.append(now)


def test_earlier_images_are_negatives_whose_moments_are_enough():
    features, truth = session(2)
    first = session(0)[0]
    x = torch.from_numpy(np.concatenate([first, features])).double()
    y = torch.from_numpy(np.concatenate([np.zeros((len(first), 7)), truth])).double()
    ones = torch.ones(len(x), dtype=torch.float64)
    whole = Sums.of(x, y, ones)
    old = Sums.of(x[: len(first)], y[: len(first), :0], ones[: len(first)])
    own = Sums.of(x[len(first) :], y[len(first) :], ones[len(first) :])
    for name, value in vars(own.plus(old.negatives(1.0))).items():
        torch.testing.assert_close(value, getattr(whole, name))
    gaussian = old.diagonal().negatives(0.5)
    torch.testing.assert_close(gaussian.gram_HH.diagonal(), 0.5 * old.gram_HH.diagonal())
    assert old.diagonal().gram_HH.shape == (K,)


def test_scores_of_ridge_are_probabilities():
    method = walk(make(Ridge), 1, images=400)
    features, truth = session(7, 2000)
    probability, truth = torch.sigmoid(logits(method, features)).numpy(), truth[:, :3]
    shares = truth.mean(0)
    assert ((probability - truth) ** 2).mean() < 0.5 * (shares * (1 - shares)).mean()
    assert abs(probability.mean() - truth.mean()) < 0.05


@pytest.mark.parametrize("pseudo", ["none", "hard", "soft", "per_class"])
def test_pseudo_labels_take_the_place_of_unknown_ones(pseudo):
    method = make(Ridge, old_rows="refreshed", pseudo=pseudo, threshold=0.5)
    walk(method, 1)
    begin(method, 1)
    seen = method.look_at(list(batches(1, *session(1))))
    targets = method.with_pseudo_labels(seen)
    scale, shift = method.calibration_C2.T
    old = seen.logits_NC[:, :3]
    wanted = {
        "none": torch.zeros_like(old),
        "hard": ((old - shift) / scale > 0.5).double(),
        "soft": torch.sigmoid(old),
        "per_class": (torch.sigmoid(old) >= method.thresholds_C).double(),
    }[pseudo]
    torch.testing.assert_close(targets[:, :3], wanted)
    torch.testing.assert_close(targets[:, 3:], seen.targets_NC[:, 3:])


def test_rare_classes_weigh_more_in_l3a():
    method = begin(make(Ridge, old_rows="refreshed", balanced=True, strength=1.0), 0)
    truth = np.zeros((10, 7), np.float32)
    truth[:, 0], truth[0, 1] = 1, 1
    seen = method.look_at(list(batches(0, session(0, 10)[0], truth)))
    omega = method.weights(seen, seen.targets_NC)
    rarity = np.array([10**-0.5, 1.0]) / np.mean([10**-0.5, 1.0])
    assert omega[1].item() == pytest.approx(rarity[0])
    assert omega[0].item() == pytest.approx(rarity.mean())


def test_a_resumed_session_has_the_same_rows():
    for cls, options in ((Ridge, {}), (Ridge, {"gaussian": True}), (KeptFeatures, {"unknown": "soft"})):
        whole = walk(make(cls, **options))
        begun = walk(make(cls, **options), 2)
        again = make(cls, **options)
        for index in range(2):
            begin(again, index)
        again.network.load_state_dict(begun.network.state_dict())
        again.load_method_state(begun.method_state())
        begin(again, 2).fit(list(batches(2, *session(2))))
        features = session(9)[0]
        torch.testing.assert_close(logits(again, features), logits(whole, features), rtol=0, atol=0)


def test_random_features_are_the_same_in_every_network():
    head = {**SESSION_LINEAR, "hidden": 20, "seed": 3}
    one, other = walk(make(Ridge, head)), make(Ridge, head, seed=1)
    for index in range(3):
        begin(other, index)
    other.network.load_state_dict(one.network.state_dict())
    features = session(9)[0]
    torch.testing.assert_close(logits(one, features), logits(other, features), rtol=0, atol=0)
    assert "head.projection" not in one.network.state_dict()


def test_kept_features_are_joint_training_where_all_labels_are_known():
    method = make(KeptFeatures, strength=1.0)
    for index in range(3):
        begin(method, index)
        features, truth = session(index)
        batch = list(batches(index, features, truth))
        for part in batch:
            start = int(part["rows"][0]) - 1000 * index
            part["targets"] = torch.from_numpy(truth[start : start + len(part["rows"]), : SPLITS[index][1]])
        method.fit(batch)
    method.labels = torch.from_numpy(np.concatenate([session(i)[1] for i in range(3)])).to(torch.int8)
    from sklearn.linear_model import LogisticRegression

    rows = method.solve(method.features.double(), method.labels)
    for c in range(7):
        model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-10)
        model.fit(method.features.double().numpy(), method.labels[:, c].numpy())
        np.testing.assert_allclose(rows[c, :-1], model.coef_[0], atol=1e-5)
        np.testing.assert_allclose(rows[c, -1], model.intercept_[0], rtol=1e-5, atol=1e-5)


def test_new_rows_alone_are_those_of_all_rows_and_old_ones_stay():
    found = []
    for new_only in (False, True):
        method = make(KeptFeatures, strength=1.0)
        method.new_only = new_only
        for index in range(2):
            begin(method, index)
            before = method.network.head.linear.weight[:3].clone()
            method.fit(list(batches(index, *session(index))))
        found.append(method.network.head.linear.weight)
        assert torch.equal(before, found[-1][:3]) == new_only
    torch.testing.assert_close(found[0][3:], found[1][3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("unknown", ["absent", "masked", "soft", "em", "hill", "splc"])
def test_what_unknown_cells_do(unknown):
    """Images without one label of a class: absent pushes its scores down, the others less or not at all."""
    features, truth = session(0, 60)
    x, labels = torch.from_numpy(features).double(), torch.from_numpy(truth[:, :1]).to(torch.int8)
    hidden = labels.clone()
    hidden[::2] = -1
    absent, this = (make(KeptFeatures, unknown=name, likely=0.3, strength=0.1) for name in ("absent", unknown))
    rows = {"all": absent.solve(x, labels), "absent": absent.solve(x, hidden), "this": this.solve(x, hidden)}
    mean = {name: torch.sigmoid(x @ row[0, :-1] + row[0, -1])[labels[:, 0] == 1].mean() for name, row in rows.items()}
    assert mean["all" if unknown == "absent" else "this"] > mean["absent"] + 0.01


def test_images_that_return_fill_in_their_labels_and_the_limit_holds():
    method = begin(make(KeptFeatures, limit=25), 0)
    features, truth = session(0)
    method.fit(list(batches(0, features, truth)))
    assert method.features.dtype == torch.float16
    assert method.labels.shape == (25, 3)
    row = int(method.rows[0])
    begin(method, 1)
    again = {
        "maps": torch.from_numpy(features[row : row + 1, :, None, None]).double(),
        "targets": torch.tensor([[-1.0, -1, -1, 1, 0]]),
        "rows": torch.tensor([row]),
        "origins": torch.tensor([1]),
    }
    method.fit([again])
    place = method.rows.tolist().index(row)
    assert method.labels[place].tolist() == [*truth[row, :3].astype(int), 1, 0]
    assert (method.labels[1:, 3:] == -1).all()
    assert method.state_bytes()["statistics"] == 25 * (2 * K + 5 + 8)


def test_the_limit_keeps_a_sample_of_all_sessions():
    """A quarter of three sessions alike, also where their rows are forgotten, as in a tagger."""
    method = make(KeptFeatures, limit=60)
    for index in range(3):
        begin(method, index)
        method.fit(list(batches(index, *session(index, 80))))
        kept = [int((method.rows // 1000 == t).sum()) for t in range(index + 1)]
        assert sum(kept) == 60
        assert min(kept) > 60 / (index + 1) / 2
    method.rows.fill_(-1)
    before = {feature.numpy().tobytes() for feature in method.features}
    method.fit(list(batches(2, *session(4, 80))))
    stayed = sum(feature.numpy().tobytes() in before for feature in method.features)
    assert 15 < stayed < 60


def test_features_that_half_precision_cannot_hold_are_refused():
    method = begin(make(KeptFeatures), 0)
    features, truth = session(0)
    features[3, 0] = 7e4
    with pytest.raises(UserError, match=r"7e\+04; half precision ends at 65504"):
        method.fit(list(batches(0, features, truth)))
    assert len(method.features) == 0


@pytest.mark.parametrize(
    ("cls", "head", "options", "message"),
    [
        (Ridge, LINEAR, {}, "session_linear"),
        (Ridge, {"type": "session_linear"}, {}, "bias=True"),
        (FrozenRows, LINEAR, {}, "session_linear"),
        (KeptFeatures, SESSION_LINEAR, {}, "'linear'"),
        (Ridge, None, {"pseudo": "hard"}, "old_rows='refreshed'"),
        (Ridge, None, {"old_rows": "odd"}, "old_rows is 'odd'"),
        (Ridge, None, {"old_rows": "refreshed", "gaussian": True}, "gaussian=False"),
        (KeptFeatures, None, {"unknown": "odd"}, "unknown is 'odd'"),
    ],
)
def test_bad_options(cls, head, options, message):
    with pytest.raises(ValueError, match=message):
        make(cls, head, **options)


def test_they_need_a_frozen_backbone():
    with pytest.raises(ValueError, match="frozen_backbone=True"):
        Ridge(IncrementalNetwork({"name": "identity"}, SESSION_LINEAR, 8))


#: mean absolute logit of one batch of images after each session
GOLDEN: dict[str, list[float]] = {
    "Frozen rows": [8.6494710, 11.5361713, 13.9738757],
    "Ridge": [2.6506334, 2.5273022, 2.5331441],
    "Ridge, Gaussian": [2.6506334, 2.4302129, 2.5338065],
    "L3A": [2.6582903, 2.6773436, 2.9576711],
    "KeptFeatures": [2.3725026, 2.7597857, 3.1027253],
}


def golden(name):
    cls, options = {
        "Frozen rows": (FrozenRows, {}),
        "Ridge": (Ridge, {}),
        "Ridge, Gaussian": (Ridge, {"gaussian": True}),
        "L3A": (Ridge, {"old_rows": "refreshed", "pseudo": "hard", "balanced": True, "strength": 10.0}),
        "KeptFeatures": (KeptFeatures, {"strength": 1.0}),
    }[name]
    method, found = make(cls, **options), []
    for index in range(3):
        begin(method, index)
        learn = partial(descend, method) if cls is FrozenRows else method.fit
        learn(list(batches(index, *session(index))))
        found.append(logits(method, session(9)[0]).abs().mean().item())
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(name):
    assert golden(name) == pytest.approx(GOLDEN[name], rel=1e-5)
