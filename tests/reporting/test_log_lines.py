"""Lines that readers of the released code's log look for keep their words, and the guide says which."""

import re
from pathlib import Path

from report_files import make_run

from mlcil.reporting import log_lines
from mlcil.reporting.report_runs import read_runs

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "read_the_results.md"


def test_words_of_the_released_code_stay(tmp_path):
    (run,) = read_runs([make_run(tmp_path, scores=False)])
    last = run.sessions[-1]
    lines = log_lines.metrics(last, "session")
    for split in ("base", "seen", "new"):
        assert f"session current_mAP_{split} = {last['mAP'][split]:.2f}" in lines
    (f1,) = [line for line in lines if line.startswith("session at 0.8: ")]
    assert re.findall(r"(\w+) [\d.]+|(?<=, )(\w+) nan", f1.partition(": ")[2])
    assert [name for name in ("CP", "CR", "CF1_mean", "OP", "OR", "OF1") if f"{name} " not in f1] == []
    (dpl,) = log_lines.report(last["report"])
    assert dpl.startswith("dpl: target 1.0000, reached 1.2000, threshold 0.7500, evaluations 3")
    told = log_lines.memory({"chosen": 9, "stored": 7, "total": 20})
    assert told == "memory: 9 chosen, 7 stored after removing duplicates, 20 in total"


def test_the_guide_maps_them():
    page = GUIDE.read_text()
    table = page[page.index("### If you know the log of KRT's released code") :].partition("\n## ")[0]
    for words in (
        "current_mAP_seen",
        "dpl: target",
        "threshold",
        "stored after removing duplicates",
        "CF1_mean",
        "AP/CLASS",
    ):
        assert words in table
