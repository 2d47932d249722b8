"""The built wheel, installed without the checkout, trains from an empty folder."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--no-build-isolation"]
    build = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    # a copy of the sources, so that the build leaves nothing in the checkout
    source = folder / "source"
    files = ["pyproject.toml", "README.md", "LICENSE", "requirements.txt", "src"]
    subprocess.run(["cp", "-r", *(ROOT / name for name in files), _made(source)], check=True)
    for left in source.glob("src/*.egg-info"):
        subprocess.run(["rm", "-r", left], check=True)
    subprocess.run([*pip, "wheel", *options, "-w", folder / "dist", source], check=True, env=build)
    (wheel,) = (folder / "dist").glob("mlcil-*.whl")
    subprocess.run([*pip, "install", *options, "--target", folder / "site", wheel], check=True, env=build)
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")} == {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")
    }
    return folder / "site"


def _made(folder):
    folder.mkdir()
    return folder


def mlcil(installed, cwd, *words):
    """The installed command line."""
    return subprocess.run(
        [sys.executable, "-m", "mlcil", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_plan(installed, tmp_path):
    done = mlcil(installed, tmp_path, "plan", "krt", "data=digits", "protocol=B4-C3", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [len(session["classes"]) for session in plan["sessions"]] == [4, 3, 3]
    assert plan["method"] == "KRT"


def test_train_an_epoch_of_digits(installed, tmp_path):
    words = ["lwf", "data=digits_single", "protocol=2-tasks", "train_cfg.max_epochs=1", "seed=2"]
    done = mlcil(installed, tmp_path, "train", *words)
    assert done.returncode == 0, done.stderr
    run = "lwf_digits_single_2-tasks"
    results = json.loads((tmp_path / "logs" / run / "results.json").read_text())
    assert len(results["sessions"]) == 2
    assert (tmp_path / "saved_models" / run / "session_1.pth").is_file()
    assert str(installed) not in (tmp_path / "logs" / run / "config.py").read_text()


def test_a_bench_has_a_name(installed, tmp_path):
    done = mlcil(installed, tmp_path, "bench", "demo", "--table")
    assert done.returncode == 0, done.stderr
    assert "KRT-R, 20/class" in done.stdout
