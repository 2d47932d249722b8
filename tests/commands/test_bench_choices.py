"""A bench with choices: they are judged on held-out training images, and the best ones make the table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_files import make_run

from mlcil.commands import bench, bench_plan
from mlcil.engine.config import load_config
from mlcil.errors import UserError

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

    def run(jobs, at_once, processes, keep=True):
        assert not jobs or keep != ("scenario.validation=0.25" in jobs[0].overrides)
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
    with pytest.raises(UserError, match="LwF: no trial of choice 1 is finished"):
        bench.run_bench(Path("mine.py"), table_only=True)


PHOTOS = """
title = "Photos"
seeds = [1]
class_orders = ["as_given"]
one_table = True
protocols = [dict(label="five"), dict(label="two", overrides={"scenario.increment": 2})]
runs = [dict(label="LwF", config="lwf data={data}"), dict(label="Fine-tuning", config="finetune data={data}")]
"""


@pytest.mark.parametrize(("inside", "kind"), [("Annotations", "voc"), ("VOCdevkit", "voc"), ("annotations", "coco")])
def test_photos_of_ones_own(tmp_path, inside, kind):
    path, folder = tmp_path / "photos.py", tmp_path / "mine"
    path.write_text(PHOTOS)
    (folder / inside).mkdir(parents=True)
    found, words = bench_plan.data_of(path, [f"data={folder}", "seed=3"])
    assert (found, words) == (kind, ["seed=3", f"scenario.dataset.root={str(folder)!r}"])
    content = bench_plan.load_bench(path, found)
    assert [run["config"] for run in content["runs"]] == [f"lwf data={kind}", f"finetune data={kind}"]
    jobs = bench_plan.plan_jobs(path, bench_plan.tables_of(content)[1], words)[1]
    assert str(jobs[0].run_dir) == f"logs/bench_photos_{kind}_two/lwf_seed1_order0"
    assert jobs[0].settings["scenario"]["dataset"]["root"] == str(folder)


def test_rows_of_another_bench(tmp_path):
    """A file that takes some of its runs knows its data, too."""
    (tmp_path / "photos.py").write_text(PHOTOS)
    (tmp_path / "some.py").write_text('_base_ = ["photos.py"]\nruns = _base_.runs[:1]\n')
    (tmp_path / "mine" / "annotations").mkdir(parents=True)
    kind, _ = bench_plan.data_of(tmp_path / "some.py", [f"data={tmp_path / 'mine'}"])
    assert [run["config"] for run in bench_plan.load_bench(tmp_path / "some.py", kind)["runs"]] == ["lwf data=coco"]


def test_a_folder_that_is_laid_out_like_nothing_known(tmp_path):
    path = tmp_path / "photos.py"
    path.write_text(PHOTOS)
    with pytest.raises(UserError, match=rf"data={tmp_path} holds neither VOC's folders .* nor COCO's"):
        bench_plan.data_of(path, [f"data={tmp_path}"])
    path.write_text(TEXT)
    assert bench_plan.data_of(path, [f"data={tmp_path}"]) == ("voc", [f"data={tmp_path}"])  # such a word is the runs'


def test_protocols_share_a_table_with_f1_of_calibrated_scores(trained, monkeypatch):
    Path("photos.py").write_text(PHOTOS)
    made = []

    def run(jobs, at_once, processes, keep=True):
        assert not jobs or keep != ("scenario.validation=0.25" in jobs[0].overrides)
        for job in jobs:
            twin = any(word.startswith("scenario.validation") for word in job.overrides)
            name = str(Path(job.run_dir).relative_to("logs"))
            seed = 5 if twin else 6  # other scores
            folder = make_run(
                Path(), name, seed=seed, dpl=False, config=job.settings["text"], provenance={"seed": 1}, images=200,
                comparison_hash=name.split("/")[0],
            )  # fmt: skip
            if "lwf" in name:  # scores that say the same on another scale
                for file in folder.glob("scores/session_*.npz"):
                    arrays = dict(np.load(file))
                    np.savez(file, rows=arrays["rows"], logits=10 * arrays["logits"] - 70)
            made.append((name, twin))
        return []

    monkeypatch.setattr(bench, "run_jobs", run)
    assert bench.run_bench(Path("photos.py")) == 0
    assert sorted(made) == sorted(
        (f"bench_photos_voc_{protocol}/{row}_seed1_order0{'_twin' * twin}", twin)
        for protocol in ("five", "two") for row in ("lwf", "fine_tuning") for twin in (False, True)
    )  # fmt: skip
    table = json.loads(Path("logs/bench_photos_voc/table.json").read_text())
    labels = [f"{row}, {protocol}" for protocol in ("five", "two") for row in ("LwF", "Fine-tuning")]
    assert [row["label"] for row in table["rows"]] == labels
    first, second = (row["mean"] for row in table["rows"][:2])
    assert first["calibrated CF1"] == pytest.approx(second["calibrated CF1"], abs=0.1)
    assert first["calibrated OF1"] == pytest.approx(second["calibrated OF1"], abs=0.1)
    assert 50 < first["calibrated OF1"] < 100
    assert (first["MB kept"], first["seconds"]) == (5.00501, 37.5)
    text = Path("logs/bench_photos_voc/table.md").read_text()
    head = "| method | runs | average mAP | last mAP | last fixed mAP | forgetting | calibrated CF1 | calibrated OF1 |"
    assert head in text
    assert "no test image is read" in text


def test_checkpoints_of_trials_go_when_they_are_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(TEXT)
    (table,) = bench_plan.tables_of(bench_plan.load_bench(Path("mine.py")))
    _, trials = bench_plan.plan_jobs(Path("mine.py"), table, trials=True)

    class Done:
        def carry_out(self, requests, at_once):
            for index, job in enumerate(trials[:2]):
                job.checkpoint_dir.mkdir(parents=True)
                (job.checkpoint_dir / "session_0.pth").write_text("")
                job.output.write_text("no\n")
                yield from [(index, None), (index, index)]

    assert bench.run_jobs(trials[:2], 1, Done(), keep=False) == [trials[1]]  # a failed one may go on
    assert [job.checkpoint_dir.is_dir() for job in trials[:2]] == [False, True]
