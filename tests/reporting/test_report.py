"""The report as a whole: what it holds, that it stands alone, and what it says when something is missing."""

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_files import make_run
from tiny import call, coco_folder, write_config

from mlcil.errors import UserError
from mlcil.evaluation.sessions import GLOSSARY, summarise
from mlcil.reporting.html import page, write_report
from mlcil.reporting.report_runs import read_runs

VOID = {"meta", "img", "br", "hr"}
EVIL = ("<script>alert(1)</script>", 'a"b', "c'd & <b>", "</title><i>", "&amp;", "é ×")


class Page(HTMLParser):
    """Checks that elements close in order, and gathers what a test looks for."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.open, self.names, self.attributes, self.words = [], [], [], []
        self.feed(content)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def render(*runs):
    return page(read_runs(runs))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report"))


def test_the_command_writes_into_the_run_or_where_it_is_told(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "report", run) == (0, f"{run / 'report.html'}\n", "")
    other = make_run(tmp_path, "finetune", dpl=False)
    assert call(capsys, "report", run, "finetune") == (0, "report.html\n", "")  # found under logs/
    (tmp_path / "finetune.out").write_text("what a glob catches")
    code, out, err = call(capsys, "report", "finetune", "finetune.out", "--output", "new/a.html")
    assert (code, out, err) == (0, "new/a.html\n", "passed over, since it is no folder: finetune.out\n")
    for path, names in (
        (run / "report.html", ["krt"]),
        (tmp_path / "report.html", ["krt", "finetune"]),
        (tmp_path / "new" / "a.html", ["finetune"]),
    ):
        content = path.read_text()
        assert content.startswith("<!DOCTYPE html>")
        assert all(name in Page(content).text for name in names)
        path.unlink()
    assert sorted(p.name for p in other.iterdir()) == ["results.json", "scores"]


def test_it_needs_nothing_but_itself(run):
    content = render(run)
    parsed = Page(content)
    assert not {"script", "link", "iframe", "object", "use"} & set(parsed.names)
    assert all(value.startswith("data:image/jpeg;base64,") for value in parsed.values("src"))
    anchors = parsed.values("href")
    assert anchors
    assert {anchor.removeprefix("#") for anchor in anchors} <= set(parsed.values("id"))
    assert not re.search(r"url\(|@import|https?:", content)
    assert "default-src 'none'" in " ".join(value or "" for value in parsed.values("content"))
    assert len(set(parsed.values("id"))) == len(parsed.values("id"))


def test_it_is_small(tmp_path):
    runs = [make_run(tmp_path, f"run{k}", seed=k, images=150) for k in range(3)]
    content = render(*runs)
    assert Page(content).names.count("img") == 3 * (24 + 6)
    assert len(content) < 1_500_000
    many = [make_run(tmp_path, f"more{k}", seed=k, images=150) for k in range(12)]
    assert Page(render(*many)).names.count("img") <= 150


def test_the_same_runs_give_the_same_report(run):
    assert render(run) == render(run)


def test_it_shows_every_part(run):
    parsed = Page(render(run))
    for heading in (
        "What got worse", "Summary", "mAP per session", "AP of every class", "Classes in detail",
        "Forgetting and plasticity", "Pseudo-labels",
        "Memory and time", "Test images", "Where the numbers come from", "Glossary",
    ):  # fmt: skip
        assert heading in parsed.text
    content = json.loads((run / "results.json").read_text())
    for key in ("average_mAP", "last_mAP", "average_fixed_mAP", "last_fixed_mAP", "plasticity"):
        assert f"{content['summary'][key]:.1f}" in parsed.text
    for words in ("0123abcd", "mlcil train zoo.py", "aaaaaaaaaaaa", "seed = 3", "5.0 MB", "37.5 s|38 s"):
        assert re.search(words, parsed.text), words
    assert set(GLOSSARY) <= {word.strip() for word in parsed.words}
    assert [v for t, k, v in parsed.attributes if (t, k) == ("tr", "class")] == ["first"] * 2  # session boundaries


def test_forgetting_over_sessions_is_the_summary_of_the_sessions_so_far(run):
    loaded = read_runs([run])[0]
    assert loaded.summaries[-1] == summarise(loaded.sessions)
    assert loaded.summaries[0]["forgetting"] is None
    assert f"{loaded.summaries[1]['forgetting']:.1f}".replace("-", "−") in Page(render(run)).text


def test_names_from_data_and_users_are_escaped(tmp_path):
    run = make_run(
        tmp_path, "evil", classes=EVIL, prefix="<img src=x>&'\"",
        method="<KRT>", protocol='B0"><', config="</pre><script>", protocol_hash="<&>",
        provenance={"command": "<script>x</script>", "weights": {"source": "<a>", "leak": "<leak>"}},
    )  # fmt: skip
    content = json.loads((run / "results.json").read_text())
    content["name"] = "<u>evil</u>"
    content["sessions"][1]["report"]["<extra>"] = {"<k>": "<v>"}
    content["sessions"][1]["report"]["plain"] = "<w>"
    (run / "results.json").write_text(json.dumps(content))
    written = render(run, make_run(tmp_path, "tame"))
    parsed = Page(written)
    assert not {"script", "u", "krt", "extra", "leak", "w", "k", "v"} & set(parsed.names)
    assert "<script" not in written
    for name in (*EVIL, "<u>evil</u>", "<KRT>", "</pre><script>", "<extra>", "<k> <v>", "<w>", "<leak>"):
        assert name in parsed.text
    assert any(value == name for name in EVIL for value in parsed.values("title"))
    alts = [v for t, k, v in parsed.attributes if (t, k) == ("img", "alt")]
    assert any(alt.startswith("<img src=x>&'\"") for alt in alts)


def test_a_run_without_scores_says_so(tmp_path):
    content = render(make_run(tmp_path, scores=False))
    assert "This run saved no scores" in content
    assert "<img" not in content


def test_damaged_scores_and_lost_images_do_not_stop_the_report(tmp_path):
    run = make_run(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    parsed = Page(render(run))
    assert re.search(r"(\d+) of \1 images cannot be read any more, the first is .*\.png", parsed.text)
    assert "img" not in parsed.names
    (run / "scores" / "session_2.npz").write_bytes(b"PK\x03\x04 nothing")
    assert "No contact sheet: " in Page(render(run)).text


def note_before_table(content):
    return re.findall(r'<p class="note (\w+)" role="note">(.*?)</p>', content.split("<table", 1)[0])


def test_protocols_that_differ_are_marked_above_the_table(tmp_path):
    a = make_run(tmp_path, "a")
    same = make_run(tmp_path, "same", seed=1)
    joint = make_run(tmp_path, "joint", protocol_hash="cccccccccccc")
    other = make_run(tmp_path, "other", protocol_hash="dddddddddddd", comparison_hash="eeeeeeeeeeee")
    assert note_before_table(render(a, same)) == []
    ((kind, sentence),) = note_before_table(render(a, joint))
    assert kind == "info"
    assert "aaaaaaaaaaaa" in sentence
    assert "cccccccccccc" in sentence
    ((kind, sentence),) = note_before_table(render(a, other))
    assert kind == "warning"
    assert "different protocols" in sentence
    assert "1 a; " in sentence
    assert "2 other" in sentence


def test_runs_that_go_on_or_know_their_classes_are_marked(tmp_path):
    run = make_run(tmp_path, status="running", provenance={"weights": {"leak": "saw all"}})
    kinds = note_before_table(render(run))
    assert [kind for kind, _ in kinds] == ["warning"] * 2
    assert "not finished" in kinds[0][1]
    assert "saw all" in kinds[1][1]


def test_a_directory_given_twice_counts_once(run):
    assert len(read_runs([run, run / ".." / run.name])) == 1


def test_runs_of_different_length_share_a_chart(tmp_path):
    runs = [make_run(tmp_path, f"s{k}", sessions=k) for k in (1, 2, 3, 6)]
    parsed = Page(render(*runs))
    assert "sessions" in parsed.text
    assert "Classes of the only session" in parsed.text


def optional_keys(content):
    """Paths to the keys that older or other runs may lack."""
    needed = {"mAP", "fixed_mAP", "fixed_AP"}
    yield from ((key,) for key in content if key not in ("format", "name", "classes", "sessions"))
    yield from (("sessions", key) for key in content["sessions"][1] if key not in needed)
    for part in ("memory", "train", "images", "report"):
        yield from (("sessions", part, key) for key in content["sessions"][1][part])
    yield from (("sessions", "report", "dpl", key) for key in content["sessions"][1]["report"]["dpl"])
    yield from (("provenance", key) for key in content["provenance"])


def test_results_that_lack_something_are_reported_without_it(tmp_path):
    run = make_run(tmp_path, scores=False)
    whole = json.loads((run / "results.json").read_text())
    paths = list(optional_keys(whole))
    assert len(paths) > 40
    for *parents, key in paths:
        content = copy.deepcopy(whole)
        places = [content]
        for parent in parents:
            places = [place.get(parent, {}) for place in places]
            places = [p for place in places for p in (place if isinstance(place, list) else [place])]
        for place in places:
            place.pop(key, None)
        (run / "results.json").write_text(json.dumps(content))
        assert "Summary" in Page(render(run)).text, (parents, key)


def test_numbers_that_do_not_exist_are_dashes(tmp_path):
    run = make_run(tmp_path, scores=False)
    content = json.loads((run / "results.json").read_text())
    for session in content["sessions"]:
        session["fixed_AP"][0] = None
        session["fixed_mAP"] = {"base": None, "seen": None, "new": None, "old": None}
    content["summary"]["forgetting"] = float("nan")
    (run / "results.json").write_text(json.dumps(content))
    shown = Page(render(run)).text
    assert "nan" not in shown.lower()
    assert "No session has this number." in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sessions": []}, "holds no finished session yet"),
        ({"sessions": 3}, "sessions is 3.*valid list"),
        ({"sessions": [{"index": 0}]}, r"lacks numbers that a report needs, expected name, classes, sessions\[\]\.mAP"),
        ({"format": "mlcil-results-9"}, "has the format 'mlcil-results-9', expected"),
    ],
)
def test_results_that_are_no_results_are_refused(tmp_path, capsys, change, message):
    run = make_run(tmp_path, scores=False)
    content = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**content, **change}))
    code, _, err = call(capsys, "report", run)
    assert code == 2
    assert re.search(message, err)
    assert str(run / "results.json") in err
    assert not (run / "report.html").exists()


def test_mistakes_name_what_to_do(tmp_path, capsys):
    run = make_run(tmp_path, scores=False)
    code, _, err = call(capsys, "report", tmp_path / "nothing")
    assert code == 2
    assert "is no run directory" in err
    with pytest.raises(UserError, match=r"is a folder, expected a file; use .*report\.html"):
        write_report([run], tmp_path)
    (run / "results.json").write_text("{")
    with pytest.raises(UserError, match="is no results file of a run"):
        write_report([run])


def test_a_run_of_the_engine_gives_a_whole_report(tmp_path, capsys):
    """The files that training writes are the files that the report reads."""
    config = write_config(tmp_path, coco_folder(tmp_path / "coco"), more="method = dict(type='KRT')\n")
    config.write_text(config.read_text().replace('head=dict(type="linear")', 'head=dict(type="ica", embed_dim=32)'))
    assert call(capsys, "train", config, "--name", "run")[0] == 0
    run = tmp_path / "logs" / "run"
    assert call(capsys, "report", run)[:2] == (0, f"{run / 'report.html'}\n")
    parsed = Page((run / "report.html").read_text())
    assert "img" in parsed.names
    assert "Pseudo-labels" in parsed.text
    assert "teacher" in parsed.text
    assert "saved no scores" not in parsed.text
    with np.load(run / "scores" / "test.npz") as test:
        assert set(test["classes"]) <= set(" ".join(parsed.words).split())
