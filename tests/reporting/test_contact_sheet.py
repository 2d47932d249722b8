"""Which images are shown, and what is said of them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from report_files import make_run
from tiny import truncate

from mlcil.errors import UserError
from mlcil.reporting.contact_sheet import PER_KIND, PIXELS, Scores, choose, keep_pictures, read_scores, thumbnail
from mlcil.reporting.report_runs import read_runs

NAMES = ["ant", "bee", "cat"]


def scores_of(scores, targets):
    scores, targets = np.asarray(scores, float), np.asarray(targets, np.int8)
    return Scores(scores, targets, [f"/nowhere/{k}.jpg" for k in range(len(scores))], NAMES, np.ones(len(scores), bool))


def rows(chosen):
    return {kind: [(tile.row, tile.focus) for tile in tiles] for kind, tiles in chosen.items()}


def test_right_wrong_and_missed():
    scores = scores_of(
        [[0.95, 0.1, 0.1], [0.99, 0.2, 0.1], [0.9, 0.1, 0.1], [0.3, 0.9, 0.1], [0.2, 0.1, 0.1], [np.nan] * 3],
        [[1, 0, 0], [1, 0, 0], [0, 0, 1], [1, -1, 0], [1, 1, 0], [1, 1, 1]],
    )
    found = rows(choose(scores, 0, 1, 0.8, 4, set()))
    right, missed = [(1, "ant"), (0, "ant")], [(4, "ant"), (3, "ant")]
    assert found == {"right": right, "wrong": [(2, "ant")], "unknown": [], "missed": missed}
    # what is not judged is neither right nor wrong; an image that was not predicted is not shown
    found = rows(choose(scores, 1, 2, 0.8, 4, set()))
    assert found == {"right": [], "wrong": [], "unknown": [(3, "bee")], "missed": [(4, "bee")]}


def test_every_class_gets_its_first_choice_before_any_gets_its_second():
    scores = scores_of([[0.99, 0, 0], [0.98, 0, 0], [0.97, 0, 0], [0, 0.9, 0], [0, 0, 0.85]], [[1, 1, 1]] * 5)
    found = rows(choose(scores, 0, 3, 0.8, 4, set()))["right"]
    assert found == [(0, "ant"), (3, "bee"), (4, "cat"), (1, "ant")]


def test_an_image_is_shown_once():
    scores = scores_of([[0.99, 0.99, 0.1], [0.9, 0.9, 0.1]], [[1, 1, 0], [1, 1, 0]])
    used = set()
    first = choose(scores, 0, 1, 0.8, 1, used)
    second = choose(scores, 1, 2, 0.8, 4, used)
    assert rows(first)["right"] == [(0, "ant")]
    assert rows(second)["right"] == [(1, "bee")]
    assert used == {0, 1}


def test_a_tile_names_true_and_predicted_labels():
    scores = scores_of([[0.95, 0.9, 0.85], [0.1, 0.2, 0.3]], [[1, 0, -1], [0, 1, 0]])
    tile = choose(scores, 0, 1, 0.8, 1, set())["right"][0]
    assert tile.true == [("ant", 0.95)]
    assert tile.predicted == [("ant", 0.95, True), ("bee", 0.9, False), ("cat", 0.85, None)]
    assert tile.jpeg is None
    missed = choose(scores, 1, 2, 0.8, 1, set())["missed"][0]
    assert (missed.focus, missed.focus_score, missed.predicted) == ("bee", 0.2, [])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_thumbnails_are_small_jpegs(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.new(mode, (900, 400)).save(path)
    with Image.open(io.BytesIO(base64.b64decode(thumbnail(path)))) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        assert max(image.size) == PIXELS
        assert image.size[1] == pytest.approx(PIXELS * 4 / 9, abs=1)


def test_files_that_cannot_be_read_have_no_thumbnail(tmp_path):
    assert thumbnail(tmp_path / "missing.png") is None
    path = tmp_path / "a.png"
    Image.effect_noise((50, 50), 9).save(path)
    assert thumbnail(truncate(path)) is None


def test_scores_are_read_as_probabilities(tmp_path):
    run = make_run(tmp_path)
    scores = read_scores(run, 3, 6)
    with np.load(run / "scores" / "session_2.npz") as file:
        logits = file["logits"].astype(np.float64)
    np.testing.assert_allclose(scores.scores_NS, 1 / (1 + np.exp(-logits)))
    assert scores.classes == ["ant", "bee", "cat", "dog", "elk", "fox"]


def test_images_without_files_are_kept_for_the_sheet(tmp_path):
    run = make_run(tmp_path, prefix="gone/")
    (report_run,) = read_runs([run])
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 9, 3), dtype=np.uint8)
    keep_pictures(report_run, pixels)
    scores = read_scores(run, 3, 6)
    assert 0 < len(scores.pictures) < 40
    for row, image in scores.pictures.items():
        np.testing.assert_array_equal(image, pixels[row])
    for count in range(1, PER_KIND + 1):
        used = set()
        for low, high in (report_run.ranges[0], report_run.ranges[-1]):
            for tiles in choose(scores, low, high, report_run.measure.threshold, count, used).values():
                assert all(tile.jpeg == thumbnail(pixels[tile.row]) for tile in tiles)
    np.savez(run / "scores" / "pictures.npz", rows=np.arange(3), images=np.zeros((2, 8, 9, 3), np.uint8))
    assert read_scores(run, 3, 6).pictures == {}


def test_rows_that_were_not_predicted_are_unknown(tmp_path):
    run = make_run(tmp_path)
    np.savez(
        run / "scores" / "session_0.npz", rows=np.asarray([3, 5]), logits=np.asarray([[0, 1000], [-1000, 0]], "f4")
    )
    scores = read_scores(run, 1, 2)
    assert np.flatnonzero(np.isfinite(scores.scores_NS).all(1)).tolist() == [3, 5]
    assert scores.scores_NS[3].tolist() == [0.5, 1.0]
    assert scores.targets_NS.shape == (40, 2)


def test_a_run_without_scores_of_its_last_session_has_none(tmp_path):
    run = make_run(tmp_path, scores=False)
    assert read_scores(run, 3, 6) is None
    other = make_run(tmp_path, "other")
    (other / "scores" / "session_2.npz").unlink()
    assert read_scores(other, 3, 6) is None


def test_scores_of_another_run_and_damaged_files_are_refused(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(UserError, match=r"session_2\.npz does not fit results\.json.*expected 4 seen classes"):
        read_scores(run, 3, 4)
    np.savez(run / "scores" / "session_1.npz", rows=np.asarray([99]), logits=np.zeros((1, 4), "f4"))
    with pytest.raises(UserError, match="does not fit"):
        read_scores(run, 2, 4)
    np.savez(run / "scores" / "session_1.npz", rows=np.asarray([9]))
    with pytest.raises(UserError, match=r"session_1\.npz cannot be read.*expected the arrays rows, logits"):
        read_scores(run, 2, 4)
    truncate(run / "scores" / "session_0.npz")
    with pytest.raises(UserError, match=r"session_0\.npz cannot be read"):
        read_scores(run, 1, 2)
