"""Case f: herding, de-duplication and the fixed budget."""

import numpy as np
import parity_fixtures
import pytest

from mlcil.memory.selection import deduplicate, herding, per_class_herding, truncate_to_budget

Z = parity_fixtures.load()
FEATURES, TARGETS, IDS = Z["f/features"], Z["f/targets"], Z["f/image_ids"]
LOW, HIGH, COUNT = map(int, Z["f/low_high_nproto"])


def flat(lists):
    return [i for chosen in lists for i in chosen]


@pytest.mark.parametrize("kind", ["local", "all"])
def test_order_of_choice(kind):
    for offset, c in enumerate(range(LOW, HIGH)):
        expected = Z[f"f/per_class_order_{kind}_{offset}"]
        candidates = np.flatnonzero(TARGETS[:, c])
        wanted = COUNT if kind == "local" else max(len(Z[f"f/per_class_order_all_{k}"]) for k in range(HIGH - LOW))
        assert list(candidates[herding(FEATURES[candidates], wanted)]) == list(expected)


def test_without_deduplication():
    lists = per_class_herding(FEATURES, TARGETS, LOW, HIGH, COUNT)
    assert flat(lists) == list(Z["f/voc_subset_indices_no_dedup"])


def test_deduplication_by_image():
    lists = per_class_herding(FEATURES, TARGETS, LOW, HIGH, COUNT)
    stored = [int(i) for i in Z["f/already_stored_image_ids"]]
    position = {int(image): i for i, image in enumerate(IDS)}
    kept = flat(deduplicate([[int(IDS[i]) for i in chosen] for chosen in lists], stored))
    assert [position[image] for image in kept] == list(Z["f/coco_subset_indices"])
    assert set(kept) | set(stored) == set(map(int, Z["f/coco_image_id_set_after"]))


def test_fixed_budget():
    expected = Z["f/budget/per_class_indices"]
    lists = per_class_herding(FEATURES, Z["f/budget/targets"], LOW, HIGH, expected.shape[1])
    assert lists == expected.tolist()
    assert flat(lists) == list(Z["f/budget/subset_indices_before"])


@pytest.mark.parametrize("key", sorted(k for k in Z.files if k.startswith("f/budget/size") and k.endswith("_indices")))
def test_cut_to_a_budget(key):
    budget = int(key.split("/")[-1].removeprefix("size").removesuffix("_indices"))
    lists = Z["f/budget/per_class_indices"].tolist()
    official = truncate_to_budget(lists, budget, hard_cap=False)
    assert flat(official) == list(Z[key])
    capped = truncate_to_budget(lists, budget)
    assert len(flat(capped)) == min(budget, len(flat(lists)))
    assert all(c == o[: len(c)] for c, o in zip(capped, official, strict=True))
