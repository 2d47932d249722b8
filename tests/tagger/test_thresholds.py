import numpy as np
import pytest

from mlcil.tagger.thresholds import DOUBT, FALLBACK, best_threshold, calibrate, probability


def made(seed, photos, share, quality=2.0):
    """Logits of one label whose true log odds are known: (N,) logits, (N,) targets."""
    rng = np.random.default_rng(seed)
    present = rng.random(photos) < share
    return rng.normal(0, 1, photos) + quality * present, present.astype(np.int8)


def test_the_best_f1_by_trying_all_thresholds():
    for seed in range(20):
        logits, present = made(seed, 60, 0.2, 1.0)
        scores = probability(logits, np.array([1.0, 0.0]))
        found = best_threshold(scores, present == 1)
        tried = []
        for threshold in np.unique(scores):
            given = scores >= threshold
            wrong = (given & (present == 0)).sum()
            if given.sum() + DOUBT * wrong**0.5 <= present.sum():
                tried.append(2 * (given & (present == 1)).sum() / (given.sum() + present.sum()))
        given = scores >= found
        assert given.sum() <= present.sum()
        assert 2 * (given & (present == 1)).sum() / (given.sum() + present.sum()) == max(tried)


def test_no_label_is_given_more_than_twice_as_often_as_it_occurs():
    """Thresholds of 300 photos, judged on others; weak labels as well."""
    rates = []
    for seed in range(40):
        quality = [0.7, 1.5, 3.0][seed % 3]
        logits, targets = made(seed, 300, 0.1, quality)
        found = calibrate(logits[:, None], targets[:, None], ("a",))
        other, truth = made(1000 + seed, 20_000, 0.1, quality)
        given = probability(other, found.correction_C2[0]) >= found.thresholds_C[0]
        rates.append(given.mean() / truth.mean())
    assert max(rates) <= 2
    assert np.mean(rates) > 0.4  # and not because nothing is given


def test_a_rare_label_is_given_with_care():
    """Sixteen photos show it: by its best F1 alone it would be given up to half as often again as it occurs."""
    rates = []
    for seed in range(100):
        logits, targets = made(seed, 400, 0.04, 1.5)
        if targets.sum() < 10:
            continue
        found = calibrate(logits[:, None], targets[:, None], ("a",))
        other, truth = made(1000 + seed, 20_000, 0.04, 1.5)
        rates.append((probability(other, found.correction_C2[0]) >= found.thresholds_C[0]).mean() / truth.mean())
    assert np.quantile(rates, 0.9) <= 1
    assert np.median(rates) > 0.4


def test_photos_collected_for_a_label_are_weighed_against_earlier_ones():
    """A third of these photos show it, of all photos a tenth."""
    ratios = {0: [], 1400: []}
    for seed in range(20):
        logits, targets = made(seed, 600, 1 / 3, 1.5)
        other, truth = made(500 + seed, 20_000, 0.1, 1.5)
        for earlier, found in ratios.items():
            c = calibrate(logits[:, None], targets[:, None], ("a",), earlier=earlier)
            found.append((probability(other, c.correction_C2[0]) >= c.thresholds_C[0]).mean() / truth.mean())
    assert max(ratios[1400]) <= 2 < max(ratios[0])


def test_scores_are_probabilities():
    logits, targets = made(0, 4000, 0.2, 2.0)
    found = calibrate(3 * logits[:, None] - 7, targets[:, None], ("a",))
    score = probability(3 * logits - 7, found.correction_C2[0])
    for low in np.arange(0, 1, 0.2):
        inside = (score >= low) & (score < low + 0.2)
        if inside.sum() > 50:
            assert targets[inside].mean() == pytest.approx(score[inside].mean(), abs=0.08)


def test_unknown_cells_do_not_count():
    logits, targets = made(1, 400, 0.3)
    unknown = targets.copy()
    unknown[200:] = -1
    first = calibrate(logits[:200, None], targets[:200, None], ("a",))
    with_unknown = calibrate(logits[:, None], unknown[:, None], ("a",))
    assert np.array_equal(first.correction_C2, with_unknown.correction_C2)
    assert np.array_equal(first.thresholds_C, with_unknown.thresholds_C)


def test_too_few_positives_have_a_stated_fallback():
    logits, targets = made(2, 300, 0.3)
    few = np.zeros(300, np.int8)
    few[:3] = 1
    only = np.where(np.arange(300) < 40, 1, -1)
    found = calibrate(np.stack([logits] * 3, 1), np.stack([targets, few, only], 1), ("enough", "few", "only"))
    assert found.thresholds_C[1] == FALLBACK
    assert np.array_equal(found.correction_C2[1], found.correction_C2[0])
    assert [note.partition(":")[0] for note in found.notes] == ["few", "only"]
    assert "3 photos show it and 297 lack it" in found.notes[0]
    reached = probability(logits[:40], found.correction_C2[2]) >= found.thresholds_C[2]
    assert reached.mean() == pytest.approx(0.8, abs=0.03)


def test_scores_that_say_nothing_are_told():
    rng = np.random.default_rng(0)
    found = calibrate(-np.arange(100.0)[:, None], (np.arange(100) > 80).astype(np.int8)[:, None], ("a",))
    assert "do not tell its photos from others" in found.notes[0]
    assert calibrate(rng.normal(size=(0, 1)), np.zeros((0, 1), np.int8), ("a",)).thresholds_C[0] == FALLBACK


def test_images_of_nothing_stay_below_the_threshold():
    logits, targets = made(3, 300, 0.2)
    nothing = np.linspace(-1, 9, 40)[:, None]
    found = calibrate(logits[:, None], targets[:, None], ("a",), nothing)
    given = probability(nothing[:, 0], found.correction_C2[0]) >= found.thresholds_C[0]
    assert not given.any()
