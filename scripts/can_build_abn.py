"""Exit 0 where inplace-abn can be built: a C++ compiler, and PyTorch for the CPU or a GPU with its toolkit."""

import re
import shutil
import subprocess
import sys

import torch


def toolkit_matches():
    """A CUDA compiler of the version that PyTorch was built with."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return False
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+\.\d+)", text)
    return release is not None and release[1] == torch.version.cuda


compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
on_cpu = torch.version.cuda is None and torch.version.hip is None
sys.exit(0 if compiler and (on_cpu or (torch.cuda.is_available() and toolkit_matches())) else 1)
