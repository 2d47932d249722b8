"""Settings of the whole suite."""

import os

import torch

# tiny networks run fastest on one thread, and several processes do not fight for the cores
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
