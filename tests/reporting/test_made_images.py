"""Images that a method made: a row a class, lost classes named, damaged files said in words."""

import numpy as np
from report_files import make_run

from mlcil.reporting.html import page
from mlcil.reporting.made_images import made_images
from mlcil.reporting.report_runs import read_runs


def test_made_images_are_shown_by_class(tmp_path):
    folder = make_run(tmp_path, classes=("<ant>", "bee", "cat", "dog", "elk", "fox"), scores=False)
    (run,) = read_runs([folder])
    assert made_images(run) == []
    assert "Made images" not in page([run])
    (folder / "made").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "made" / "session_2.npz", images=images, labels=np.asarray([0] * 7 + [2] * 2))
    np.savez(folder / "made" / "session_1.npz", images=images[:4], labels=np.arange(9))
    np.savez(folder / "made" / "other.npz", images=images)
    damaged, sheet = made_images(run)
    assert (damaged.session, sheet.session) == (1, 2)
    assert "session_1.npz cannot be read (it holds no images of one class each)" in damaged.error
    assert [name for name, _ in sheet.strips] == ["<ant>", "cat"]
    assert (sheet.present, sheet.old, sheet.lost) == (2, 4, ["bee", "dog"])
    written = page([run])
    assert written.count("data:image/png;base64,") == 2
    assert 'alt="made images of &lt;ant&gt;"' in written
    assert "2 of 4 old classes are seen in them. Not seen: bee, dog." in written
    assert "No images of session 1" in written
