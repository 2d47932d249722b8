import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcil.datasets.scenario import Scenario, in_one_session
from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.datasets.voc import VocDataset
from mlcil.errors import UserError

CLASSES = ("a", "b", "c", "d")
#: train: rows 0..5; -1 is not judged and does not select
TRAIN = [[1, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, -1], [0, 0, 0, 0], [0, 1, 1, 1]]
TEST = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]


def table(labels: Any, name: str, classes: tuple[str, ...] = CLASSES) -> ImageTable:
    labels_NC = np.array(labels, np.int8).reshape(-1, len(classes))
    ids = tuple(range(len(labels_NC)))
    return ImageTable(name, classes, ids, tuple(Path(f"{i}.jpg") for i in ids), labels_NC, labels_NC == 1)


class Made:
    """A data set in memory."""

    label_cardinality = 1.5

    def __init__(self, train: Any = TRAIN, test: Any = TEST, name: str = "made", **options: str) -> None:
        self.name, self._train, self._test = name, table(train, "train"), table(test, "test")
        self.__dict__.update(options)

    def train(self) -> ImageTable:
        return self._train

    def test(self) -> ImageTable:
        return self._test


def made(**options: Any) -> Scenario:
    return Scenario(Made(), **{"base": 0, "increment": 2, **options})


def test_attributes() -> None:
    scenario = made(class_order=["d", "a", "c", "b"])
    assert scenario.classes == scenario.train.classes == scenario.test.classes == ("d", "a", "c", "b")
    assert [(s.low, s.high, s.classes) for s in scenario.sessions] == [(0, 2, ("d", "a")), (2, 4, ("c", "b"))]
    np.testing.assert_array_equal(scenario.train.labels_NC, np.array(TRAIN)[:, [3, 0, 2, 1]])
    np.testing.assert_array_equal(scenario.test.selects_NC, np.array(TEST)[:, [3, 0, 2, 1]] == 1)
    assert (scenario.base_high, scenario.increment, scenario.label_cardinality) == (2, 2, 1.5)
    assert (scenario.protocol, scenario.name, made(name="mine").name) == ("B0-C2", "made", "mine")


def test_rows_of_sessions() -> None:
    scenario = made()
    assert scenario.train_rows(0).tolist() == [0, 1, 2, 5]
    assert scenario.train_rows(1).tolist() == [1, 2, 3, 5]
    assert scenario.train_rows(1).dtype == np.int64
    assert scenario.test_rows(0, 2).tolist() == [1, 3]
    assert scenario.test_rows(2, 4).tolist() == [2, 4]
    assert scenario.fixed_test_rows().tolist() == [0, 1, 2, 3, 4]
    shown = made(fixed_test_images="shown").fixed_test_rows()
    assert shown.tolist() == [1, 2, 3, 4]
    assert shown.dtype == scenario.fixed_test_rows().dtype == np.int64


def test_targets_show_the_range_only() -> None:
    scenario = made()
    targets = scenario.train_targets(scenario.train_rows(1), 2, 4)
    assert targets.dtype == np.int8
    assert targets.tolist() == [[-1, -1, 1, 0], [-1, -1, 0, 1], [-1, -1, 1, -1], [-1, -1, 1, 1]]
    assert scenario.train_targets(np.array([1, 5]), 0, 3).tolist() == [[1, 0, 1], [0, 1, 1]]
    per_row = scenario.train_targets(np.array([2, 5, 5]), np.array([0, 2, 4]), 4)
    assert per_row.tolist() == [[0, 1, 0, 1], [-1, -1, 1, 1], [-1, -1, -1, -1]]
    assert scenario.train_targets(np.zeros(0, np.int64), 0, 2).shape == (0, 2)
    np.testing.assert_array_equal(scenario.train.labels_NC, TRAIN)  # the table is untouched


def test_the_first_class_that_images_come_with_labels_of() -> None:
    assert [made(increment=1).first_labelled(t) for t in range(3)] == [(0,), (0, 1), (0, 1, 2)]
    assert made(increment=1, cumulative=True).first_labelled(2) == (0, 1, 0)
    assert made(increment=1, replay_labels="propagate").first_labelled(2) == (0, 0, 2)


def test_labels_of_exemplars() -> None:
    assert made().exemplar_range(0, 1) == (0, 4)
    assert made(increment=1).exemplar_range(1, 3) == (1, 4)
    assert made(increment=1, replay_labels="frozen").exemplar_range(1, 3) == (1, 2)


def test_joint() -> None:
    scenario = made(joint=True)
    assert [(s.low, s.high) for s in scenario.sessions] == [(0, 4)]
    assert scenario.sessions[0].classes == CLASSES
    assert (scenario.base_high, scenario.protocol) == (2, "joint-B0-C2")
    assert scenario.train_rows(0).tolist() == [0, 1, 2, 3, 5]


def test_the_hash_tells_scenarios_apart() -> None:
    one = made().hash
    assert one == made().hash == made(base=2).hash == made(name="other").hash
    other_train, other_test = [*TRAIN[:-1], [0, 1, 1, 0]], [*TEST, [0, 0, 0, 0]]
    others = [
        made(increment=1),
        made(joint=True),
        made(class_order="random:3"),
        made(fixed_test_images="shown"),
        made(replay_labels="frozen"),
        *(
            Scenario(dataset, 0, 2)
            for dataset in (
                Made(name="x"),
                Made(train=other_train),
                Made(test=other_test),
                Made(crowd="label"),
                Made(difficult="label"),
            )
        ),
    ]
    hashes = {one, *(scenario.hash for scenario in others)}
    assert len(hashes) == 1 + len(others)
    assert all(len(value) == 12 for value in hashes)


def test_plan() -> None:
    plan = made().plan(batch_size=3, epochs=[10, 10])
    assert json.loads(json.dumps(plan)) == plan
    first, second = plan["sessions"]
    assert first == {
        "index": 0,
        "low": 0,
        "high": 2,
        "classes": ["a", "b"],
        "images": 4,
        "labels_given": 4,
        "labels_hidden": 4,
        "hidden_old": 0,
        "hidden_future": 4,
        "unknown": 0,
        "images_seen_before": 0,
        "share_seen_before": 0.0,
        "test_images": {"base": 2, "seen": 2, "new": 2, "fixed": 5},
        "steps": 20,
    }
    assert (second["labels_given"], second["hidden_old"], second["hidden_future"]) == (5, 3, 0)
    assert second["unknown"] == 2 * 4 + 1  # two old classes on four images, and what is not judged
    assert (second["images_seen_before"], second["share_seen_before"]) == (3, 0.75)
    assert second["test_images"] == {"base": 2, "seen": 4, "new": 2, "fixed": 5}
    assert (plan["training_images"], plan["unused_training_images"]) == (5, 1)
    assert plan["exposures_per_image"] == pytest.approx(8 / 5)
    assert plan["test_positives_minimum"] == {"class": "b", "positives": 1}
    assert plan["classes_without_train_positives"] == plan["classes_without_test_positives"] == []
    assert (plan["protocol"], plan["hash"], plan["fixed_test_images"]) == ("B0-C2", made().hash, 5)
    assert made().plan()["sessions"][0]["steps"] is None


def test_one_class_an_image_is_in_one_session_anyway() -> None:
    labels = SingleLabelTable("x", ("a", "b"), np.array([0, 1]), files=(Path("0"), Path("1")))
    assert in_one_session(labels, ()) is labels


def test_a_class_without_images() -> None:
    lonely = [[*row[:3], 0] for row in TRAIN]
    with pytest.raises(UserError, match=r"no image of the training split 'train' shows 'd'.*allow_empty_classes"):
        Scenario(Made(train=lonely), 0, 1)
    scenario = Scenario(Made(train=lonely, test=lonely), 0, 1, allow_empty_classes=True)
    assert scenario.train_rows(3).tolist() == []
    plan = scenario.plan(2, [3] * 4)
    assert plan["classes_without_train_positives"] == plan["classes_without_test_positives"] == ["d"]
    assert plan["sessions"][3]["steps"] == plan["sessions"][3]["share_seen_before"] == 0
    assert plan["test_positives_minimum"] == {"class": "d", "positives": 0}
    with pytest.raises(UserError, match=r"session 3 \(d\) has no image.*at least one a session"):
        scenario.refuse_empty_sessions(range(4))
    scenario.refuse_empty_sessions(range(3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replay_labels": "propagated"}, "'propagated'.*'oracle', 'frozen', 'propagate'"),
        ({"fixed_test_images": "show"}, "did you mean 'shown'.*'all', 'shown'"),
        ({"increment": 3}, "increment=2 or 4"),
        ({"class_order": ["a", "b", "c"]}, "misses 'd'"),
        ({"class_order": "sorted"}, "unknown"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(**options)


class Bare:
    """No more than a data set needs."""

    name = "bare"

    def train(self) -> ImageTable:
        return table(TRAIN, "train")

    def test(self) -> ImageTable:
        return table(TEST, "test")


def test_a_data_set_needs_no_more_than_a_name_and_two_splits() -> None:
    scenario = Scenario(Bare(), 0, 2)
    assert (scenario.name, scenario.task, scenario.label_cardinality) == ("bare", "multi_label", None)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (
            "name",
            None,
            r"class Bare has no name; expected a text name and the methods train\(\) and test\(\)",
        ),
        ("test", None, r"class Bare has no test\(\); expected"),
        ("task", "multilabel", "class Bare: task is 'multilabel'.*did you mean 'multi_label'"),
        ("train", list, r"class Bare: train\(\) returns a list; expected an ImageTable"),
    ],
)
def test_a_data_set_that_lacks_a_part(part: str, value: Any, message: str) -> None:
    dataset = Bare()
    setattr(dataset, part, value)
    with pytest.raises(UserError, match=message):
        Scenario(dataset, 0, 2)


def test_splits_must_fit() -> None:
    with pytest.raises(UserError, match="the test split has no image"):
        Scenario(Made(test=[]), 0, 2)
    dataset = Made()
    dataset._test = table(TEST, "test", ("a", "b", "c", "e"))
    with pytest.raises(UserError, match=r"the class 'd' is in only one"):
        Scenario(dataset, 0, 2)


def test_columns_of_the_splits_may_differ_in_order() -> None:
    dataset = Made()
    dataset._test = table(TEST, "test").reorder(("d", "c", "b", "a"))
    np.testing.assert_array_equal(Scenario(dataset, 0, 2).test.labels_NC, TEST)


def test_files_of_own_data(tmp_path: Path) -> None:
    """From a folder on disk to targets."""
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    for split, objects in (("trainval", {"n1": "robot", "n2": "drone"}), ("test", {"n3": "robot"})):
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(objects))
        for image, name in objects.items():
            text = f"<annotation><object><name>{name}</name></object></annotation>"
            (tmp_path / "Annotations" / f"{image}.xml").write_text(text)
            (tmp_path / "JPEGImages" / f"{image}.png").touch()
    scenario = Scenario(VocDataset(tmp_path), 0, 1, class_order="lexicographic")
    assert scenario.classes == ("drone", "robot")
    assert [scenario.train.ids[row] for t in (0, 1) for row in scenario.train_rows(t)] == ["n2", "n1"]
    assert scenario.train_targets(scenario.train_rows(1), 1, 2).tolist() == [[-1, 1]]


def test_validation_leaves_the_test_split_alone() -> None:
    class Trusting(Made):
        def test(self) -> ImageTable:
            raise AssertionError("the test split was read")

    labels = np.random.default_rng(0).integers(0, 2, (40, 4))
    whole = table(labels, "train")
    scenario = Scenario(Trusting(train=labels), base=0, increment=2, validation=0.25)
    assert (len(scenario.train), len(scenario.test)) == (30, 10)
    assert sorted(scenario.train.ids + scenario.test.ids) == list(whole.ids)
    for part in (scenario.train, scenario.test):
        np.testing.assert_array_equal(part.labels_NC, whole.labels_NC[list(part.ids)])
        np.testing.assert_array_equal(part.selects_NC, whole.selects_NC[list(part.ids)])
        assert part.files == tuple(whole.files[row] for row in part.ids)
    again = Scenario(Made(train=labels), base=0, increment=1, validation=0.25)
    assert again.test.ids == scenario.test.ids
    assert scenario.protocol == "B0-C2-validation"
    tested = Scenario(Made(train=labels), base=0, increment=2)
    assert len({scenario.hash, tested.hash, again.hash}) == 3
    assert scenario.comparison_hash != tested.comparison_hash


def test_validation_takes_as_much_of_every_class() -> None:
    labels_N = np.repeat([0, 1, 2], [20, 40, 4])
    pixels = np.arange(64, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    whole = SingleLabelTable("train", ("a", "b", "c"), labels_N, pixels=pixels)
    rest, held_out = whole.divided(0.25)
    assert held_out.positives().tolist() == [5, 10, 1]
    assert rest.positives().tolist() == [15, 30, 3]
    assert held_out.name == "train, held out"
    for part in (rest, held_out):
        assert isinstance(part, SingleLabelTable)
        np.testing.assert_array_equal(part.pixels[:, 0, 0, 0], part.ids)  # type: ignore[index]
        np.testing.assert_array_equal(part.labels_N, labels_N[list(part.ids)])


@pytest.mark.parametrize("share", [-0.1, 1, "0.2", True, None, float("nan")])
def test_bad_validation(share: Any) -> None:
    with pytest.raises(UserError, match=r"scenario.validation is .*expected a share of the training images below 1"):
        made(validation=share)


def test_images_that_cannot_be_read_are_nowhere() -> None:
    scenario, whole = made(), made()
    scenario.leave_out(train=[1, 2], test=[3])
    assert scenario.train_rows(0).tolist() == [0, 5]  # numbers of rows stay
    assert scenario.train_rows(1).tolist() == [3, 5]
    assert scenario.test_rows(0, 2).tolist() == [1]
    assert scenario.fixed_test_rows().tolist() == [0, 1, 2, 4]
    assert scenario.test.positives().tolist() == [1, 0, 1, 1]
    assert (scenario.hash, scenario.comparison_hash) == (whole.hash, whole.comparison_hash)
    with pytest.raises(UserError, match="no image of the training split 'train' shows 'a'"):
        made().leave_out(train=[0, 1], test=[])
    made(allow_empty_classes=True).leave_out(train=[0, 1], test=[])
    with pytest.raises(UserError, match="none of the 5 images of the test split 'test' can be read"):
        made().leave_out(train=[], test=range(5))


def test_disjoint_sessions_share_no_image_and_leave_no_class_out():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 6)) < 0.3).astype(np.int8)
    labels[:, 5] = 0
    labels[3] = 1  # the only image of the last class
    files = tuple(Path(f"{k}.jpg") for k in range(200))
    table = ImageTable("train", tuple("abcdef"), tuple(range(200)), files, labels, labels == 1)

    class Photos:
        name = "photos"

        def train(self):
            return table

        def test(self):
            return table

    ordinary, found = Scenario(Photos(), increment=2), Scenario(Photos(), increment=2, disjoint=True)
    parts = [set(found.train_rows(t).tolist()) for t in range(3)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert set.union(*parts) == set.union(*(set(ordinary.train_rows(t).tolist()) for t in range(3)))
    assert all(parts[t] <= set(ordinary.train_rows(t).tolist()) for t in range(3))
    assert 3 in parts[2]
    assert min(map(len, parts)) > 20
    assert found.comparison_hash != ordinary.comparison_hash
    assert found.protocol == "B0-C2-disjoint"
    assert [session["images_seen_before"] for session in found.plan()["sessions"]] == [0, 0, 0]
    np.testing.assert_array_equal(found.train.labels_NC, labels)  # only who sees an image changes
    whole = Scenario(Photos(), increment=2, disjoint=True, cumulative=True)
    assert [len(whole.train_rows(t)) for t in range(3)] == np.cumsum([len(part) for part in parts]).tolist()
    assert len(Scenario(Photos(), increment=2, disjoint=True, joint=True).train_rows(0)) == len(set.union(*parts))
