"""Cases k and l of the fixtures: images and labels of every session against the authors' own code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from krt_fixtures import each

from mlcil.datasets.coco import CocoDataset
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import ImageTable
from mlcil.datasets.voc import VocDataset


def case(Z: Any, name: str) -> dict[str, Any]:
    return json.loads(str(Z[name]))


def sizes(sessions: list[dict[str, Any]]) -> tuple[int, int]:
    """Base and increment of a protocol, from its ranges."""
    first, second = sessions[0], sessions[1]
    return first["high"], second["high"] - second["low"]


def positives(targets_NC: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row == 1).tolist() for row in targets_NC]


def in_range(table: ImageTable, rows: np.ndarray, low: int, high: int) -> list[list[int]]:
    return [[low + c for c in found] for found in positives(table.labels_NC[rows, low:high])]


def ranges(session: dict[str, Any], base: int) -> dict[str, tuple[int, int]]:
    return {"base": (0, base), "seen": (0, session["high"]), "new": (session["low"], session["high"])}


# -- k: COCO ---------------------------------------------------------------------------------------------------


@pytest.fixture
def coco(Z: Any, tmp_path: Path) -> tuple[CocoDataset, dict[str, Any]]:
    made = case(Z, "k/coco_protocol_json")
    (tmp_path / "annotations").mkdir()
    # the categories come in the order of their official ids, not of their names
    categories = [{"id": i, "name": n} for n, i in sorted(made["category_name_to_real_id"].items(), key=lambda x: x[1])]
    for split, content in made["input"].items():
        instances = {
            "images": [{"id": i, "file_name": f"{i}.jpg"} for i in content["images"]],
            "annotations": [
                {"id": a, "image_id": i, "category_id": c, "iscrowd": crowd}
                for a, i, c, crowd in content["annotations"]
            ],
            "categories": categories,
        }
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances))
    return CocoDataset(tmp_path), made


def coco_protocols(Z: Any) -> list[str]:
    return list(case(Z, "k/coco_protocol_json")["expected"])


def coco_scenario(coco: tuple[CocoDataset, dict[str, Any]], sessions: list[dict[str, Any]], **options: Any) -> Scenario:
    base, increment = sizes(sessions)
    # the made-up splits do not show every class
    return Scenario(coco[0], base, increment, class_order="lexicographic", allow_empty_classes=True, **options)


@each()
def test_coco_class_order(coco: tuple[CocoDataset, dict[str, Any]]) -> None:
    dataset, made = coco
    scenario = coco_scenario(coco, next(iter(made["expected"].values())))
    ids = made["category_name_to_real_id"]
    assert {str(c): ids[name] for c, name in enumerate(scenario.classes)} == made["class_index_to_real_id"]
    assert sorted(scenario.train.ids) == sorted(made["input"]["train2014"]["images"])
    assert set(dataset.train().classes) == set(ids)


@each("protocol", coco_protocols)
def test_coco_sessions(coco: tuple[CocoDataset, dict[str, Any]], protocol: str) -> None:
    expected = coco[1]["expected"][protocol]
    scenario = coco_scenario(coco, expected)
    assert [(s.low, s.high) for s in scenario.sessions] == [(e["low"], e["high"]) for e in expected]
    for session, wanted in zip(scenario.sessions, expected, strict=True):
        rows = scenario.train_rows(session.index)
        assert [scenario.train.ids[row] for row in rows] == wanted["train_ids"]
        assert positives(scenario.train_targets(rows, session.low, session.high)) == wanted["train_targets"]
        for name, (low, high) in ranges(wanted, scenario.base_high).items():
            test_rows = scenario.test_rows(low, high)
            assert [scenario.test.ids[row] for row in test_rows] == wanted[f"{name}_ids"]
            assert in_range(scenario.test, test_rows, low, high) == wanted[f"{name}_targets"]


@each("protocol", coco_protocols)
def test_coco_replayed_labels(coco: tuple[CocoDataset, dict[str, Any]], protocol: str) -> None:
    expected = coco[1]["expected"][protocol]
    scenario = coco_scenario(coco, expected)
    frozen = coco_scenario(coco, expected, replay_labels="frozen")
    at = {session.high: session.index for session in scenario.sessions}
    compared = 0
    for session, wanted in zip(scenario.sessions, expected, strict=True):
        rows = scenario.train_rows(session.index)
        for now, targets in wanted["train_targets_when_replayed_with_high"].items():
            low, high = scenario.exemplar_range(session.index, at[int(now)])
            assert (low, high) == (session.low, int(now))
            assert positives(scenario.train_targets(rows, low, high)) == targets
            assert positives(scenario.train_targets(rows, np.full(len(rows), low), high)) == targets
            kept = frozen.train_targets(rows, *frozen.exemplar_range(session.index, at[int(now)]))
            assert positives(kept) == wanted["train_targets"]
            compared += 1
    assert compared


# -- l: VOC ----------------------------------------------------------------------------------------------------


@pytest.fixture
def voc(Z: Any, tmp_path: Path) -> tuple[VocDataset, dict[str, Any]]:
    made = case(Z, "l/voc_protocol_json")
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    for split, content in made["input"].items():
        text = "\n".join(content["names"]) + ("\n" if content["trailing_newline"] else "")
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
        for image, objects in content["objects"].items():
            body = "".join(f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in objects)
            (tmp_path / "Annotations" / f"{image}.xml").write_text(f"<annotation>{body}</annotation>")
            (tmp_path / "JPEGImages" / f"{image}.jpg").touch()
    return VocDataset(tmp_path), made


def voc_protocols(Z: Any) -> list[str]:
    return list(case(Z, "l/voc_protocol_json")["expected"])


def lost_images(made: dict[str, Any]) -> set[str]:
    """Images that the official code loses with the end of a list that has no final newline; we keep them."""
    return {content["names"][-1] for content in made["input"].values() if not content["trailing_newline"]}


@each()
def test_voc_keeps_every_listed_image(voc: tuple[VocDataset, dict[str, Any]]) -> None:
    dataset, made = voc
    assert list(dataset.train().ids) == made["input"]["trainval"]["names"]
    assert list(dataset.test().ids) == made["input"]["test"]["names"]
    assert list(dataset.train().classes) == made["classes"]
    assert lost_images(made) <= {*dataset.train().ids, *dataset.test().ids}


@each("protocol", voc_protocols)
def test_voc_sessions(voc: tuple[VocDataset, dict[str, Any]], protocol: str) -> None:
    dataset, made = voc
    expected = made["expected"][protocol]
    base, increment = sizes(expected)
    scenario = Scenario(dataset, base, increment, allow_empty_classes=True)
    lost = lost_images(made)
    assert [(s.low, s.high) for s in scenario.sessions] == [(e["low"], e["high"]) for e in expected]

    def named(table: ImageTable, rows: np.ndarray, labels: list[list[int]]) -> dict[str | int, list[int]]:
        return {table.ids[r]: found for r, found in zip(rows, labels, strict=True) if table.ids[r] not in lost}

    for session, wanted in zip(scenario.sessions, expected, strict=True):
        rows = scenario.train_rows(session.index)
        targets = scenario.train_targets(rows, session.low, session.high)
        assert named(scenario.train, rows, positives(targets)) == wanted["train"]
        replayed = wanted.get("train_when_replayed_in_next_session")
        if replayed is not None:
            low, high = scenario.exemplar_range(session.index, session.index + 1)
            targets = scenario.train_targets(rows, low, high)
            assert named(scenario.train, rows, positives(targets)) == replayed
        for name, (low, high) in ranges(wanted, base).items():
            test_rows = scenario.test_rows(low, high)
            found = named(scenario.test, test_rows, in_range(scenario.test, test_rows, low, high))
            assert found == wanted[name]
