"""Settings of the whole suite."""

import os

import pytest
import torch

# tiny networks run fastest on one thread, and several processes do not fight for the cores
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def features_by_torch(monkeypatch):
    """Writing a graph takes seconds: ``engine=auto`` is torch unless a test says otherwise."""
    monkeypatch.setattr("mlcil.inference.features.has_onnxruntime", lambda: False)
