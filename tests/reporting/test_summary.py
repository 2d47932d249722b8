"""The summary of a results.json is that of its sessions."""

import json

import pytest
from report_files import make_run

from mlcil.errors import UserError
from mlcil.reporting.comparison import read_run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["summary"].update(last_mAP=99.9), "its summary says last_mAP 99.9, but its sessions give"),
        (lambda c: c["summary"].update(bonus=1), "its summary says bonus 1, but its sessions give None"),
        (lambda c: c["summary"].pop("average_mAP"), "its summary says average_mAP None, but its sessions give"),
        (lambda c: c["sessions"][-1]["mAP"].update(seen=1.0), "its summary says average_mAP"),
        (lambda c: c["sessions"][-1].pop("mAP"), "has sessions that no run writes"),
        (lambda c: c.update(sessions="none"), "sessions is 'none'.*valid list"),
    ],
)
def test_what_was_changed_by_hand_is_refused(tmp_path, change, words):
    folder = make_run(tmp_path, status="done")
    path = folder / "results.json"
    content = read_run(folder)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        read_run(folder)
    assert str(path) in str(caught.value)
