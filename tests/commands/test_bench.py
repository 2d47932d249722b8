"""A bench of two methods, two seeds and two orders on a handful of scenes."""

import csv
import json

import numpy as np
import pytest

from mlcil.cli import main
from mlcil.commands.bench_plan import Job, find_bench, load_bench, plan_jobs, tables_of
from mlcil.commands.bench_tables import write_phases
from mlcil.datasets.digits import build_digit_scenes
from mlcil.evaluation.multilabel import mean_average_precision
from mlcil.reporting import comparison

SCENES = {"train_images": 40, "test_images": 24, "size": 32}
BASE = """
scenario = dict(dataset=dict(type="digits", cache_dir={cache!r}, **{scenes!r}), base=0, increment=5)
network = dict(backbone=dict(name="tresnet", layers=[1, 1, 1, 1], width=0.25), head=dict(type="linear"), image_size=32)
method = dict(type="Finetune")
train_cfg = dict(max_epochs=1, base_lr=1e-3)
train_dataloader = dict(batch_size=10, num_workers=0)
test_dataloader = dict(batch_size=12, num_workers=0)
precision = "fp32"
threads = 1
"""
BENCH = """
title = "Two methods & a half"
seeds = [1, 2]
class_orders = ["as_given", {reversed!r}]
runs = [
    dict(label="Fine-tuning", config="base.py"),
    dict(label="ER, 10", config="base.py", overrides={{
        "method.type": "ER", "memory.total": 10, "memory.selection": "reservoir",
    }}),
]
published = "voc_b0c4"
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    cache = str(build_digit_scenes(folder / "cache", **SCENES).parent)
    (folder / "base.py").write_text(BASE.format(cache=cache, scenes=SCENES))
    names = ["nine", "eight", "seven", "six", "five", "four", "three", "two", "one", "zero"]
    (folder / "small.py").write_text(BENCH.format(reversed=names))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["bench", "small.py"]) == 0
    return folder


def digit_names(folder):
    return json.loads((folder / "logs/bench_small/fine_tuning_seed1_order0/results.json").read_text())["classes"]


def test_every_form_of_the_table_is_written(bench):
    logs = bench / "logs" / "bench_small"
    table = json.loads((logs / "table.json").read_text())
    assert [row["label"] for row in table["rows"]] == ["Fine-tuning", "ER, 10"]
    assert all(len(row["values"]["last mAP"]) == 4 for row in table["rows"])  # seeds x orders
    markdown = (logs / "table.md").read_text()
    assert "±" in markdown
    assert "published" not in markdown  # the runs have none of the published settings
    assert "over class orders (of their means) and then over seeds within an order" in markdown
    latex = (logs / "table.tex").read_text()
    assert r"Two methods \& a half" in latex
    assert r"$\pm$" in latex
    rows = list(csv.DictReader((logs / "table.csv").open()))
    assert float(rows[0]["last mAP"]) == pytest.approx(table["rows"][0]["mean"]["last mAP"], abs=1e-3)
    values = table["rows"][0]["values"]["last mAP"]
    assert float(rows[0]["last mAP std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-3)


def test_numbers_of_the_table_are_those_of_the_saved_score_matrices(bench):
    logs = bench / "logs" / "bench_small"
    row = json.loads((logs / "table.json").read_text())["rows"][1]
    last, average = [], []
    for order in (0, 1):
        for seed in (1, 2):
            scores = logs / f"er__10_seed{seed}_order{order}" / "scores"
            test = np.load(scores / "test.npz")
            seen = []
            for session in (0, 1):
                saved = np.load(scores / f"session_{session}.npz")
                high = saved["logits"].shape[1]
                shown = test["selects"][saved["rows"], :high].any(1)
                probability = 1 / (1 + np.exp(-saved["logits"][shown].astype(np.float64)))
                truth = test["targets"][saved["rows"]][shown, :high]
                seen.append(mean_average_precision(probability, truth))
            last.append(seen[-1])
            average.append(np.mean(seen))
    assert row["values"]["last mAP"] == pytest.approx(last)
    assert row["values"]["average mAP"] == pytest.approx(average)


def test_what_is_done_is_not_run_again_and_what_is_missing_is(bench, monkeypatch, capfd):
    monkeypatch.chdir(bench)
    before = (bench / "logs/bench_small/er__10_seed1_order0/results.json").stat().st_mtime_ns
    (bench / "logs/bench_small/er__10_seed2_order1/results.json").unlink()
    assert main(["bench", "small.py", "--table"]) == 0
    assert "3 of 4" in capfd.readouterr().out
    assert main(["bench", "small.py"]) == 0
    out = capfd.readouterr().out
    assert out.count("done before") == 7
    assert "er__10_seed2_order1: goes on" in out
    assert "3 of 4" not in out
    assert (bench / "logs/bench_small/er__10_seed1_order0/results.json").stat().st_mtime_ns == before


def test_compare_groups_seeds_and_orders_and_passes_over_stray_files(bench, capfd, tmp_path):
    logs = bench / "logs" / "bench_small"
    everything = sorted(map(str, logs.glob("*_seed*")))  # the output of the runs too
    assert main(["compare", *everything, "--output", str(tmp_path / "out")]) == 0
    out, err = capfd.readouterr()
    assert "| fine_tuning | 4 (2 orders, 2 seeds) |" in out
    assert "passed over, since it is no folder" in err
    assert (tmp_path / "out" / "table.tex").is_file()
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    bench_rows = json.loads((logs / "table.json").read_text())["rows"]
    for ours, row in zip(
        sorted(table["rows"], key=lambda row: row["label"]),
        sorted(bench_rows, key=lambda row: row["label"]),
        strict=True,
    ):
        assert sorted(ours["values"]["last mAP"]) == pytest.approx(sorted(row["values"]["last mAP"]))
        assert ours["deviations"]["last mAP"] == pytest.approx(row["deviations"]["last mAP"])
    (difference,) = table["differences"].values()
    means = [row["mean"]["last mAP"] for row in table["rows"]]
    assert difference["difference"] == pytest.approx(means[1] - means[0], abs=1e-4)
    assert difference["low"] <= difference["difference"] <= difference["high"]
    assert difference["pairs"] == 4
    assert f"{difference['low']:+.1f} to {difference['high']:+.1f}" in out
    same = str(logs / "fine_tuning_seed1_order0")
    assert main(["compare", same, str(logs / "er__10_seed2_order1")]) == 0
    assert "The rows rest on different class orders or seeds." in capfd.readouterr().out
    other = tmp_path / "logs" / "other"
    other.mkdir(parents=True)
    content = json.loads((logs / "er__10_seed1_order0" / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**content, "comparison_hash": "x", "data_hash": "y"}))
    assert main(["compare", same, str(other)]) == 2
    assert "have different data or protocols" in capfd.readouterr().err
    assert main(["compare", str(tmp_path)]) == 2
    assert "is no run directory" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = 'x'", "has no 'runs'"),
        ("title = 'x'\nruns = [dict(label='a')]", "runs[0] has no 'config'; set runs[0].config to a text"),
        ("title = 'x'\nruns = [dict(label='a', config='b')] * 2", "would both write into the folder 'a_seed1'"),
        ("title = 'x'\nruns = [dict(label='a', config='b')]\npublished = 'coco'", "expected one of coco_b0c10"),
        ("title = 'x'\nrun = []", "did you mean 'runs'"),
        ("title =", "cannot be read"),
    ],
)
def test_wrong_bench_configs_say_what_is_wrong(tmp_path, capfd, text, sentence):
    (tmp_path / "bad.py").write_text(text)
    assert main(["bench", str(tmp_path / "bad.py")]) == 2
    assert sentence in capfd.readouterr().err


def test_a_failing_run_is_named_and_the_others_go_on(bench, monkeypatch, capfd):
    monkeypatch.chdir(bench)
    text = (bench / "small.py").read_text().replace("seeds = [1, 2]", "seeds = [3]").replace("class_orders", "_orders")
    (bench / "broken.py").write_text(text.replace('label="Fine-tuning", config="base.py"',
        'label="Fine-tuning", config="base.py", overrides={"scenario.increment": 3}'))  # fmt: skip
    assert main(["bench", "broken.py"]) == 1
    out = capfd.readouterr().out
    assert "fine_tuning_seed3: FAILED with exit code 2" in out
    assert "0 of 1" in out
    assert "| ER, 10 | 1 |" in out


def test_what_cannot_be_prepared_is_said_and_the_table_is_written(bench, monkeypatch, capfd):
    monkeypatch.chdir(bench)
    text = (bench / "small.py").read_text().replace("seeds = [1, 2]", "seeds = [4]").replace("class_orders", "_orders")
    text += "\nprepare = [dict(config='base.py', overrides={'scenario.increment': 3})]\ntrial_seeds = [9]\n"
    text += "runs = [dict(label='Tried', config='base.py', choices=[{'seed': 1}, {'seed': 2}])]\n"
    (bench / "unprepared.py").write_text(text)
    begun = bench / "logs" / "bench_unprepared" / "tried_try0_seed9"  # a trial that was killed
    begun.mkdir(parents=True)
    (begun / "results.json").write_text('{"status": "running"}')
    assert main(["bench", "unprepared.py"]) == 1
    out = capfd.readouterr().out
    assert "FAILED with exit code 2" in out
    assert "| Tried | 0 of 1 |" in out


def test_a_bench_writes_the_phases(tmp_path, monkeypatch):
    """A line a class order, with the published lines below the first one; unfinished runs have none."""
    path = find_bench("transformers_cifar100_20-20")
    (bench,) = tables_of(load_bench(path))
    jobs = plan_jobs(path, bench)[1]
    sessions = [{"accuracy": {"seen": float(value)}} for value in (50, 40, 30, 20, 10)]
    run = {"sessions": sessions, "summary": {"average_accuracy": 30.0}}
    monkeypatch.setattr(Job, "state", lambda job: "done" if job.label == "DKT" and job.order < 2 else "new")
    monkeypatch.setattr(comparison, "read_run", lambda folder: run)
    write_phases(tmp_path, bench, jobs)
    lines = (tmp_path / "phases.md").read_text().splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| D")]
    assert names[0] == "DKT, order 1"
    assert names[1].startswith("DKT, README")
    assert names[2].startswith("DKT, paper")
    assert names[3:] == ["DKT, order 2"]


def test_unknown_phases_are_refused(tmp_path, capsys):
    (tmp_path / "b.py").write_text("title = 'T'\nphases = 'dkt'\nruns = [dict(label='X', config='base.py')]\n")
    assert main(["bench", str(tmp_path / "b.py")]) == 2
    assert "phases is 'dkt'; expected one of dkt_cifar100_20-20" in capsys.readouterr().err
