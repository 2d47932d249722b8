"""Settings of the whole suite."""

import os
import signal

import pytest
import torch

# tiny networks run fastest on one thread, and several processes do not fight for the cores
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# a shell that starts something behind it (``sh run_tests.sh &``) has Ctrl-C ignored in there
signal.signal(signal.SIGINT, signal.default_int_handler)


#: where the pictures of a finished run are looked at; elsewhere they would take half of a tiny run's time
PICTURES = (
    "tests/reporting",
    "tests/test_docs.py",
    "tests/engine/test_run.py::test_a_run_leaves_its_files",
    "tests/engine/test_single_label_run.py::test_a_run_learns_and_leaves_its_files",
)


@pytest.fixture(autouse=True, scope="session")
def pictures():
    """Runs draw at their end where somebody looks."""
    from mlcil.reporting import plots

    draw = plots.draw_run

    def draw_where_looked_at(*arguments):
        return draw(*arguments) if os.environ["PYTEST_CURRENT_TEST"].startswith(PICTURES) else []

    plots.draw_run = draw_where_looked_at
    yield
    plots.draw_run = draw


@pytest.fixture(autouse=True)
def features_by_torch(monkeypatch):
    """Writing a graph takes seconds: ``engine=auto`` is torch unless a test says otherwise."""
    monkeypatch.setattr("mlcil.inference.features.has_onnxruntime", lambda: False)
