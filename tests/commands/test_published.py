"""A published number stands beside runs of its own configuration alone."""

import pytest

from mlcil.commands.bench_tables import published_for, published_settings
from mlcil.engine.config import load_config
from mlcil.reporting.published import experiments, published

KRT = ("krt/coco_b0c10", ["method.token_weight=300.0"])
FULL = {"train": 82081, "test": 40137}


def run(config=KRT, more=(), images=FULL, **changes):
    text = load_config(config[0], [*config[1], *more]).pretty_text
    return {"status": "done", "config": text, "images": images, "provenance": {"seed": 5}, **changes}


def test_a_number_stands_beside_its_own_settings():
    numbers, source, sentence = published_for([run(), run(more=["seed=9", "threads=1", "precision=fp32"])])
    assert numbers["last mAP"] == (65.9, None)
    assert "KRT (ICCV 2023)" in source
    assert sentence == "KRT of coco_b0c10 (average mAP 74.6, last mAP 65.9)"


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        (["scenario.class_order=random:1"], "scenario.class_order 'random:1', published 'lexicographic'"),
        (["train_cfg.max_epochs=1"], "train_cfg.max_epochs 1, published 20"),
        (["backbone=lite0"], "network.backbone.name 'tf_efficientnet_lite0', published 'tresnet_m'"),
        (["memory.per_class=7"], "memory.per_class 7, published"),
        (["method.token_weight=100.0"], "method.token_weight 100.0, published 300.0"),
        (["pretrained=None"], "pretrained None, published"),
    ],
)
def test_what_differs_is_said_and_nothing_is_printed(more, differs):
    numbers, source, sentence = published_for([run(), run(more=more)])
    assert (numbers, source) == ({}, "")
    assert differs in sentence


def test_a_part_of_the_data_is_not_the_data():
    assert "train images 2000, published 82783" in published_for([run(images={"train": 2000, "test": 40137})])[2]
    assert "test images unknown, published 40504" in published_for([run(images=None)])[2]
    leaky = {"seed": 1, "weights": {"leak": "its name says so"}}
    assert published_for([run(provenance=leaky)])[0] == {}
    assert published_for([run(config=("lwf data=digits", []))])[2].startswith("no number is published")
    assert published_for([{**run(), "config": "import os"}])[0] == {}


def test_lwf_of_the_tables_is_not_ours_that_leaves_unknown_labels_out():
    lwf = ("finetune/coco_b0c10", ["method.type=LwF"])
    assert published_for([run(config=lwf)])[0] == {}


def test_single_label_numbers_take_each_of_their_class_orders():
    for order in ("random:0", "random:2"):
        abd = run(("abd/cifar100_10tasks", [f"scenario.class_order={order}"]), images={"train": 50000, "test": 10000})
        assert published_for([abd])[0]["last accuracy"] == (33.7, 1.2)


def test_rows_with_settings_are_rows_of_the_source():
    rows = published_settings()
    assert len(rows) > 60
    assert all(name in experiments() and published(name, label) for name, label, _ in rows)
