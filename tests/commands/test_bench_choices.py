"""A bench with choices: they are judged on held-out training images, and the best ones make the table."""

import json
import re
from pathlib import Path

import pytest
from report_files import make_run

from mlcil.commands import bench
from mlcil.engine.config import load_config

TEXT = """
title = "T"
seeds = [1, 2]
trial_seeds = [7, 8]
class_orders = ["as_given", "lexicographic"]
runs = [
    dict(label="LwF", config="lwf data=digits", choices=[{"method.weight": w} for w in (1.0, 2.0, 3.0)]),
    dict(label="Fine-tuning", config="finetune data=digits"),
]
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs that are written instead of trained: the weight 2 is best on held-out images."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TEXT)
    words = []

    def run(jobs, at_once, processes):
        for job in jobs:
            if job.state() == "done":
                continue
            settings = load_config(job.config, [*job.overrides, "launcher='none'"])
            words.append(job.overrides)
            best = settings["method"].get("weight") == 2.0
            held_out = "validation" in settings["scenario"]
            make_run(
                Path(), str(Path(job.run_dir).relative_to("logs")), seed=job.seed, scores=False, dpl=False,
                noise=1.0 if best else 3.0, config=settings.pretty_text, provenance={"seed": job.seed},
                comparison_hash=f"{held_out}{job.order if not held_out else 0}",
            )  # fmt: skip
        return []

    monkeypatch.setattr(bench, "run_jobs", run)
    return words


def test_the_best_choice_makes_the_table(trained, capsys):
    assert bench.run_bench(Path("mine.py")) == 0
    trials = [words for words in trained if any(word.startswith("scenario.validation") for word in words)]
    table = [words for words in trained if words not in trials]
    assert trained[: len(trials)] == trials  # before anything of the table
    assert len(trials) == 3 * 2
    assert all("scenario.validation=0.25" in words and "scenario.class_order='as_given'" in words for words in trials)
    assert {word for words in trials for word in words if word.startswith("seed=")} == {"seed=7", "seed=8"}
    weights = {word for words in table for word in words if word.startswith("method.weight")}
    assert weights == {"method.weight=2.0"}
    assert len(table) == 2 * 2 * 2
    tried = Path("logs/bench_mine/tried.md").read_text()
    rows = re.findall(r"^\| LwF \| method.weight=([\d.]+) \| ([\d.]+) \| 2 \| (yes)? ?\|$", tried, re.MULTILINE)
    assert [(weight, chosen) for weight, _, chosen in rows] == [("1.0", ""), ("2.0", "yes"), ("3.0", "")]
    assert float(rows[1][1]) == max(float(value) for _, value, _ in rows)
    found = json.loads(Path("logs/bench_mine/table.json").read_text())["rows"]
    assert [(row["label"], len(row["values"]["last mAP"])) for row in found] == [("LwF", 4), ("Fine-tuning", 4)]
    trained.clear()
    assert bench.run_bench(Path("mine.py"), table_only=True) == 0
    assert trained == []
    assert "| LwF | 4 |" in capsys.readouterr().out


def test_a_choice_without_a_trial_is_named(trained):
    bench.run_bench(Path("mine.py"))
    for seed in (7, 8):
        Path(f"logs/bench_mine/lwf_try1_seed{seed}/results.json").unlink()
    with pytest.raises(bench.UserError, match="LwF: no trial of choice 1 is finished"):
        bench.run_bench(Path("mine.py"), table_only=True)
