"""Runs as a table of a row a session and class."""

import json
import re
import sys
from pathlib import Path

import pandas
import pytest
from report_files import CLASSES, make_run
from tiny import call

from mlcil.reporting.long_table import COLUMNS

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "read_the_results.md"


@pytest.fixture
def runs(tmp_path):
    images = {"train": 60, "test": 40, "train_positives": [9, 8, 7, 6, 5, 4], "test_positives": [3] * 6}
    folders = [make_run(tmp_path, f"krt_seed{k}", seed=k, scores=False) for k in (1, 2)]
    for k, folder in enumerate(folders, 1):
        content = json.loads((folder / "results.json").read_text())
        content |= {"images": images, "provenance": {"seed": k}}
        (folder / "results.json").write_text(json.dumps(content))
    return folders


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pandas_reads_what_the_runs_hold(runs, tmp_path, capsys, ending):
    target, stray = tmp_path / f"runs.{ending}", tmp_path / "krt.out"
    stray.write_text("")
    code, out, err = call(capsys, "results", *runs, stray, "--to", target)
    assert (code, out) == (0, f"{target}: 24 rows of 2 run(s)\n")
    assert "passed over" in err
    table = pandas.read_csv(target) if ending == "csv" else pandas.read_parquet(target)
    assert list(table.columns) == list(COLUMNS)
    contents = [json.loads((folder / "results.json").read_text()) for folder in runs]
    last = table[table.session == 2].groupby("run").AP.mean()
    assert last["krt_seed1"] == pytest.approx(contents[0]["sessions"][-1]["mAP"]["seen"])
    means = table[table.session == 2].groupby("class").fixed_AP.mean()
    expected = [sum(c["sessions"][2]["fixed_AP"][k] for c in contents) / 2 for k in range(6)]
    assert means[list(CLASSES)].tolist() == pytest.approx(expected)
    assert table[table["class"] == "bee"].train_images.unique().tolist() == [8]
    assert table[table["class"] == "elk"].class_session.unique().tolist() == [2]
    assert table["session_OF1_0.8"].notna().all()
    assert table.accuracy.isna().all()


def test_what_cannot_be_written_is_said(runs, tmp_path, capsys, monkeypatch):
    assert call(capsys, "results", *runs, "--to", tmp_path / "runs.xlsx")[2].endswith(".csv or .parquet\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = call(capsys, "results", *runs, "--to", tmp_path / "runs.parquet")
    assert code == 2
    assert "pip install 'mlcil[results]'" in err
    assert not (tmp_path / "runs.parquet").exists()
    assert call(capsys, "results", tmp_path / "nothing", "--to", tmp_path / "runs.csv")[0] == 2


def test_the_guide_lists_every_column():
    told = dict(re.findall(r"^\| `(\w[\w.]*)` \| (.*) \|$", GUIDE.read_text(), re.MULTILINE))
    assert {name: told.get(name) for name in COLUMNS} == COLUMNS
