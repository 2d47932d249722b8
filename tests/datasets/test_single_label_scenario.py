"""Sessions, targets and memory where every image shows exactly one class."""

import json
import pickle
from typing import Any

import numpy as np
import pytest

from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.memory.exemplars import ExemplarMemory


class Made:
    """``images`` images a class of random pixels."""

    task, label_cardinality, name = "single_label", 1.0, "made"

    def __init__(self, classes: int = 10, images: int = 6, fit: Fit | None = None) -> None:
        self.classes, self.images, self.options = classes, images, {} if fit is None else {"fit": fit}

    def table(self, split: str, images: int) -> ImageTable:
        labels = np.tile(np.arange(self.classes), images)
        pixels = np.random.default_rng(len(split)).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
        names = [f"class {c}" for c in range(self.classes)]
        return SingleLabelTable(split, names, labels, pixels=pixels, **self.options)

    def train(self) -> ImageTable:
        return self.table("train", self.images)

    def test(self) -> ImageTable:
        return self.table("test", 2)


def made(**options: Any) -> Scenario:
    return Scenario(Made(), **({"increment": 2} | options))


def test_sessions_hold_the_images_of_their_classes() -> None:
    scenario = made(class_order="random:1")
    assert scenario.task == "single_label"
    labels = np.array([int(name.split()[1]) for name in scenario.classes])[scenario.train.labels_NC.argmax(1)]
    np.testing.assert_array_equal(labels, np.tile(np.arange(10), 6))  # rows keep their labels by name
    seen: list[int] = []
    for session in scenario.sessions:
        rows = scenario.train_rows(session.index)
        assert len(rows) == 12
        seen += rows.tolist()
        targets = scenario.train_targets(rows, session.low, session.high)
        assert targets.shape == (12, session.high)
        assert (targets[:, session.low :].sum(1) == 1).all()
        assert (targets.argmax(1) >= session.low).all()
        assert set(np.unique(targets[:, session.low :])) == {0, 1}
        assert (targets[:, : session.low] == -1).all()
        np.testing.assert_array_equal(scenario.test_rows(0, session.high), np.sort(scenario.test_rows(0, session.high)))
        assert len(scenario.test_rows(0, session.high)) == 2 * session.high
    assert sorted(seen) == list(range(60))  # every image in exactly one session
    np.testing.assert_array_equal(scenario.train.selects_NC, scenario.train.labels_NC == 1)


def test_it_is_the_table_of_its_matrices() -> None:
    """One number an image gives what the general table gives."""
    one = Made().train().reorder([f"class {c}" for c in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)])
    general = ImageTable(one.name, one.classes, one.ids, (), one.labels_NC, one.selects_NC, one.pixels)
    rows = np.array([5, 5, 17, 0])
    for a, b in ((0, 3), (2, 2), (4, 10)):
        np.testing.assert_array_equal(one.rows_of(a, b), general.rows_of(a, b))
        assert one.rows_of(a, b).dtype == general.rows_of(a, b).dtype == np.int64
    for high in (0, 4, 10):
        np.testing.assert_array_equal(one.labels_of(rows, high), general.labels_of(rows, high))
        assert one.labels_of(rows, high).dtype == np.int8
    np.testing.assert_array_equal(one.positives(), general.positives())
    np.testing.assert_array_equal(one.positives(rows), general.positives(rows))
    np.testing.assert_array_equal(one.selected(), general.selected())
    assert one.digest() != Made().train().digest()
    again = pickle.loads(pickle.dumps(one))  # to worker processes
    assert (again.digest(), again.classes) == (one.digest(), one.classes)


def test_the_loader_gives_rows_with_a_single_one() -> None:
    scenario = made()
    rows = scenario.train_rows(2)
    view = SessionView(scenario.train, rows, scenario.train_targets(rows, 4, 6), 8)
    batches = list(Loader(view, SessionSampler(len(view), 0, 2, shuffle=True), batch_size=5))
    assert [tuple(batch["targets"].shape) for batch in batches] == [(5, 6), (5, 6), (2, 6)]
    for batch in batches:
        assert (batch["targets"][:, 4:].sum(1) == 1).all()
        assert (batch["targets"][:, :4] == -1).all()
        assert ((batch["targets"].argmax(1) == 4) | (batch["targets"].argmax(1) == 5)).all()


@pytest.mark.parametrize(("images", "batches"), [(12, [5, 5]), (4, [4])])
def test_the_last_batch_may_be_dropped(images: int, batches: list[int]) -> None:
    scenario = made()
    rows = scenario.train_rows(0)[:images]
    view = SessionView(scenario.train, rows, scenario.train_targets(rows, 0, 2), 8)
    loader = Loader(view, SessionSampler(len(view), 0, 0, shuffle=True), batch_size=5, drop_last=True)
    assert [len(batch["targets"]) for batch in loader] == batches
    assert len(loader) == len(batches)


@pytest.mark.parametrize(
    ("options", "protocol", "sizes"),
    [
        ({"increment": None, "num_sessions": 5}, "B0-C2", [2] * 5),
        ({"increment": None, "num_sessions": 6, "base": 5}, "B5-C1", [5] + [1] * 5),
        ({"increment": None, "num_sessions": 3}, "B4-C3", [4, 3, 3]),
        ({"increment": 5}, "B0-C5", [5, 5]),
        ({"increment": 1, "base": 5}, "B5-C1", [5] + [1] * 5),
    ],
)
def test_protocols(options: dict[str, Any], protocol: str, sizes: list[int]) -> None:
    scenario = made(**options)
    assert (scenario.protocol, [s.num_new for s in scenario.sessions]) == (protocol, sizes)
    assert scenario.increment == sizes[-1]


def test_an_increment_or_a_number_of_sessions() -> None:
    for options in ({"increment": None}, {"increment": 2, "num_sessions": 5}):
        with pytest.raises(UserError, match=r"exactly one of increment.* and num_sessions"):
            made(**options)
    with pytest.raises(UserError, match="num_sessions is 11, but there are only 10 classes"):
        made(increment=None, num_sessions=11)


def test_the_hash_knows_the_way_to_a_square() -> None:
    plain = Scenario(Made(), increment=2).hash
    assert Scenario(Made(fit=Fit()), increment=2).hash == plain
    assert Scenario(Made(fit=Fit("centre")), increment=2).hash != plain
    assert Scenario(Made(), num_sessions=5).hash == plain


def test_plan() -> None:
    plan = made().plan(batch_size=5, epochs=[2] * 5)
    assert json.loads(json.dumps(plan)) == plan
    assert plan["task"] == "single_label"
    assert [s["labels_hidden"] for s in plan["sessions"]] == [0] * 5
    assert [s["images_seen_before"] for s in plan["sessions"]] == [0] * 5
    assert [s["steps"] for s in plan["sessions"]] == [6] * 5
    assert [s["steps"] for s in made().plan(5, [2] * 5, drop_last=True)["sessions"]] == [4] * 5
    assert [s["steps"] for s in made().plan(50, [2] * 5, drop_last=True)["sessions"]] == [2] * 5
    assert plan["exposures_per_image"] == 1.0


@pytest.mark.parametrize(("total", "deduplicate"), [(20, True), (2000, True), (7, False)])
def test_a_memory_of_fixed_size(total: int, deduplicate: bool) -> None:
    """Rows of the right class, within the budget in every session, shares equal to one image."""
    scenario = made(class_order="random:3")
    memory = ExemplarMemory(total=total, deduplicate=deduplicate)
    rng = np.random.default_rng(0)
    for session in scenario.sessions:
        memory.begin_session()
        rows, origins = memory.contents()
        low, classes = session.low, scenario.train.labels_NC[rows].argmax(1)
        assert len(rows) <= total
        assert len(set(rows.tolist())) == len(rows)
        if low and total >= low:
            counts = np.bincount(classes, minlength=low)
            assert counts.max() - counts.min() <= 1
            assert counts.min() >= min(total // low, 6)
        for origin in np.unique(origins):
            seen = scenario.exemplar_range(int(origin), session.index)
            targets = scenario.train_targets(rows[origins == origin], *seen)
            assert ((targets == 1).sum(1) == 1).all()
            np.testing.assert_array_equal(targets.argmax(1), classes[origins == origin])
        new = scenario.train_rows(session.index)
        targets = scenario.train_targets(new, low, session.high)
        memory.update(session.index, low, session.high, new, rng.normal(size=(len(new), 4)), targets)
