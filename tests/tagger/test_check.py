import numpy as np
import tiny

from mlcil.evaluation.multilabel import average_precision
from mlcil.tagger.check import Tagged, compare, lines, page, weighted_ap


def tagged(name, classes, scores, threshold=0.5):
    return Tagged(name, name * 8, classes, np.asarray(scores), np.full(len(classes), threshold))


def scores_of(cells, rng, quality):
    return 1 / (1 + np.exp(-(quality * (cells - 0.5) + rng.normal(0, 1, cells.shape))))


def made(tmp_path, photos=200):
    rng = np.random.default_rng(0)
    cells = (rng.random((photos, 3)) < 0.3).astype(np.int8)
    files = [tiny.write_image(tmp_path / f"{n}.png", n) for n in range(3)] + [
        tmp_path / f"{n}.png" for n in range(3, photos)
    ]
    return rng, cells, files


def test_ap_of_draws_is_that_of_photos_drawn_so_often():
    rng = np.random.default_rng(1)
    scores, present = rng.permutation(30) / 30, rng.random(30) < 0.4
    draws = rng.multinomial(30, np.full(30, 1 / 30), 5)
    found = weighted_ap(scores, present, np.concatenate([np.ones((1, 30)), draws]))
    assert np.isclose(found[0], average_precision(scores[:, None], present[:, None])[0])
    order = np.argsort(-scores)
    for counts, ap in zip(draws, found[1:], strict=True):
        ranks = np.cumsum(counts[order])
        hits = np.cumsum(counts[order] * present[order])
        expected = sum(
            c * h / r for c, h, r, p in zip(counts[order], hits, ranks, present[order], strict=True) if c and p
        )
        assert np.isclose(ap, expected / hits[-1])
    assert np.isnan(weighted_ap(scores, np.zeros(30, bool), draws)).all()


def test_a_label_that_falls_is_found_and_one_that_stays_is_not(tmp_path):
    rng, cells, files = made(tmp_path)
    before = scores_of(cells[:, :2], rng, 3.0)
    after = np.column_stack([before[:, 0], scores_of(cells[:, 1], rng, 0.5), scores_of(cells[:, 2], rng, 3.0)])
    result = compare(
        tagged("a", ("ant", "bee"), before),
        tagged("b", ("ant", "bee", "cat"), after),
        files,
        ("ant", "bee", "cat"),
        cells,
    )
    assert result["dropped"] == ["bee"]
    ant, bee, cat = result["labels"]
    assert ant["difference"] == [0, 0, 0]
    assert bee["difference"][1] < bee["difference"][0] < bee["difference"][2] < -1
    assert cat["before"] is None
    assert cat["difference"] is None
    assert cat["after"]["AP"][1] < cat["after"]["AP"][0] < cat["after"]["AP"][2]
    given = after[:, 2] >= 0.5
    assert cat["after"]["firing_rate"] == given.mean()
    assert np.isclose(cat["after"]["precision"], 100 * cells[given, 2].mean())
    assert result["largest_difference"] == np.abs(before[:, 1] - after[:, 1]).max()
    assert not compare(
        tagged("a", ("ant", "bee"), before), tagged("b", ("ant", "bee", "cat"), after), files, ("ant", "bee"),
        cells[:, :2], max_drop=99,
    )["dropped"]  # fmt: skip


def test_a_fall_inside_the_interval_is_no_drop(tmp_path):
    rng, cells, files = made(tmp_path, 30)
    before = scores_of(cells[:, :1], rng, 1.5)
    after = before + rng.normal(0, 0.02, before.shape)
    result = compare(tagged("a", ("ant",), before), tagged("b", ("ant",), after), files, ("ant",), cells[:, :1], 0.0)
    assert result["labels"][0]["difference"][2] >= 0
    assert result["dropped"] == []


def test_unknown_cells_count_nowhere(tmp_path):
    rng, cells, files = made(tmp_path, 60)
    scores = scores_of(cells, rng, 2.0)
    unknown = cells.copy()
    unknown[30:, 0] = -1
    unknown[:, 1] = -1
    names = ("ant", "bee", "cat")
    result = compare(tagged("a", names, scores), tagged("b", names, scores), files, names, unknown)
    assert [row["label"] for row in result["labels"]] == ["ant", "cat"]
    assert result["labels"][0]["photos"] == 30
    assert result["not_judged"] == ["bee"]


def test_photos_to_look_at(tmp_path):
    cells = np.array([[1, 0], [1, 1], [0, -1], [0, 0]], np.int8)
    before = np.array([[0.9], [0.9], [0.2], [0.1]])
    after = np.array([[0.9, 0.1], [0.4, 0.9], [0.2, 0.95], [0.99, 0.1]])
    files = [tiny.write_image(tmp_path / f"<{n}>.png", n) for n in range(3)] + [tmp_path / "lost.png"]
    result = compare(tagged("a", ("ant",), before), tagged("b", ("ant", "bee"), after), files, ("ant", "bee"), cells)
    shown = [
        (entry["file"], [g[0] for g in entry["gained"]], [x[0] for x in entry["lost"]])
        for entry in result["disagreements"]
    ]
    assert (str(files[1]), ["bee"], ["ant"]) in shown
    assert (str(files[3]), ["ant"], []) in shown
    assert len(shown) == 3
    assert [(entry["file"], entry["label"], entry["cell"]) for entry in result["missing"]] == [
        (str(files[3]), "ant", 0),
        (str(files[2]), "bee", -1),
    ]
    html = page(result)
    assert html.count("data:image/jpeg;base64") == 3
    assert "&lt;1&gt;.png" in html
    assert "<1>" not in html
    assert "no image" in html
    text = "\n".join(lines(result))
    assert (
        "3 of 4 photos get other labels than before, 1 of them in new labels only; 2 labels are likely missing" in text
    )
