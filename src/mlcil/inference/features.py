"""Frozen features by onnxruntime: a small convolutional backbone in half of PyTorch's time, or less without AVX-512.

The graph is written once for a backbone's weights and kept in the cache folder. Teacher and student of a frozen
backbone share the features, so a teacher has them from the same engine.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mlcil.datasets.feature_store import BATCH, Engine, TorchEngine
from mlcil.errors import UserError
from mlcil.files import default_cache, write_bytes
from mlcil.inference.export import to_onnx
from mlcil.models.network import IncrementalNetwork
from mlcil.models.onnx_backbone import OnnxBackbone
from mlcil.protocols import check_option
from mlcil.system.onnx_graph import ENGINES, TOGETHER, Graph, has_onnxruntime, onnxruntime_version

AGREEMENT = 1e-4  # largest difference between the engines' maps, as a share of the largest value


class LastMap(nn.Module):
    """Images -> the backbone's last map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)[-1]  # type: ignore[no-any-return]


class OnnxEngine:
    """A backbone in onnxruntime, on the CPU; an :class:`~mlcil.datasets.feature_store.Engine`.

    Args:
        network: whose backbone it is.
        like: the same in PyTorch, which a first batch is compared with.

    Raises:
        UserError: a package is missing, the backbone cannot be a graph, or the engines do not agree.
    """

    def __init__(self, network: IncrementalNetwork, like: TorchEngine) -> None:
        self.weights, self.image_size, self.shape = like.weights, like.image_size, like.shape
        self.name = _name_of_onnxruntime()
        path = default_cache() / "graphs" / f"{self.weights[:32]}_torch_{torch.__version__}.onnx"
        try:
            self._graph = Graph(path.read_bytes(), str(path), torch.get_num_threads())
        except (OSError, UserError):  # not there yet, or damaged
            backbone = copy.deepcopy(network.backbone).cpu().float().eval().requires_grad_(False)
            content = to_onnx(LastMap(backbone), self.image_size, "maps")
            self._graph = Graph(content, str(path), torch.get_num_threads())
            with contextlib.suppress(UserError):  # a full disk: the next one writes it again
                write_bytes(path, content)
        noise = np.random.default_rng(0).integers(0, 256, (BATCH, self.image_size, self.image_size, 3), np.uint8)
        expected = like(torch.from_numpy(noise))
        difference = np.abs(self(torch.from_numpy(noise)) - expected).max() / np.abs(expected).max()
        if not difference <= AGREEMENT:
            raise UserError(f"onnxruntime's maps of this backbone differ by {difference:.1e} from PyTorch's")

    def __call__(self, images: Tensor) -> np.ndarray:
        return self._graph(images.numpy())


def _name_of_onnxruntime() -> str:
    return f"onnxruntime {onnxruntime_version()} cpu {torch.backends.cpu.get_cpu_capability()} by {TOGETHER}"


def feature_engine(network: IncrementalNetwork, engine: str, tell: Callable[[str], None]) -> Engine:
    """What computes the maps of a frozen backbone.

    Args:
        network: whose backbone it is, on the device where it may be computed.
        engine: ``torch``, ``onnxruntime``, or ``auto``: onnxruntime on a CPU where it is installed and the backbone
            can be a graph.
        tell: called with a line where another one computes than was asked for.

    Raises:
        UserError: no such engine, or onnxruntime is asked for and cannot be used.
    """
    check_option("engine", engine, ENGINES)
    made = TorchEngine(network)
    if isinstance(network.backbone, OnnxBackbone):
        made.name = _name_of_onnxruntime()
        if engine == "torch":
            tell("features by onnxruntime, since this backbone is an ONNX graph, which torch does not compute")
        return made
    on_cpu = next(network.backbone.parameters()).device.type == "cpu"
    if engine == "torch" or (engine == "auto" and not (on_cpu and has_onnxruntime())):
        return made
    try:
        return OnnxEngine(network, made)
    except UserError as error:
        if engine == "onnxruntime":
            raise
        tell(f"features by PyTorch: {error}")
        return made
