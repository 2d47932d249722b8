"""Case f: herding, de-duplication and the fixed budget."""

import numpy as np
import pytest
from krt_fixtures import each

from mlcil.memory.selection import deduplicate, herding, per_class_herding, truncate_to_budget


def problem(Z):
    """Features, targets, class range and images a class."""
    return Z["f/features"], Z["f/targets"], *map(int, Z["f/low_high_nproto"])


def flat(lists):
    return [i for chosen in lists for i in chosen]


@pytest.mark.parametrize("kind", ["local", "all"])
@each()
def test_order_of_choice(Z, kind):
    features, targets, low, high, count = problem(Z)
    for offset, c in enumerate(range(low, high)):
        expected = Z[f"f/per_class_order_{kind}_{offset}"]
        candidates = np.flatnonzero(targets[:, c])
        wanted = count if kind == "local" else max(len(Z[f"f/per_class_order_all_{k}"]) for k in range(high - low))
        assert list(candidates[herding(features[candidates], wanted)]) == list(expected)


@each()
def test_without_deduplication(Z):
    lists = per_class_herding(*problem(Z))
    assert flat(lists) == list(Z["f/voc_subset_indices_no_dedup"])


@each()
def test_deduplication_by_image(Z):
    lists, ids = per_class_herding(*problem(Z)), Z["f/image_ids"]
    stored = [int(i) for i in Z["f/already_stored_image_ids"]]
    position = {int(image): i for i, image in enumerate(ids)}
    kept = flat(deduplicate([[int(ids[i]) for i in chosen] for chosen in lists], stored))
    assert [position[image] for image in kept] == list(Z["f/coco_subset_indices"])
    assert set(kept) | set(stored) == set(map(int, Z["f/coco_image_id_set_after"]))


@each()
def test_fixed_budget(Z):
    features, _, low, high, _ = problem(Z)
    expected = Z["f/budget/per_class_indices"]
    lists = per_class_herding(features, Z["f/budget/targets"], low, high, expected.shape[1])
    assert lists == expected.tolist()
    assert flat(lists) == list(Z["f/budget/subset_indices_before"])


@each("key", lambda Z: [key for key in Z.keys("f/budget/size") if key.endswith("_indices")])
def test_cut_to_a_budget(Z, key):
    budget = int(key.split("/")[-1].removeprefix("size").removesuffix("_indices"))
    lists = Z["f/budget/per_class_indices"].tolist()
    official = truncate_to_budget(lists, budget, hard_cap=False)
    assert flat(official) == list(Z[key])
    capped = truncate_to_budget(lists, budget)
    assert len(flat(capped)) == min(budget, len(flat(lists)))
    assert all(c == o[: len(c)] for c, o in zip(capped, official, strict=True))
