"""One file a method; importing this package registers them all."""

from mlcil.methods.abd import ABD
from mlcil.methods.agcn import AGCN
from mlcil.methods.base import Method
from mlcil.methods.bic import BiC, SingleLabelBiC
from mlcil.methods.csc import CSC
from mlcil.methods.daformer import DAFormer
from mlcil.methods.deep_inversion import DeepInversion
from mlcil.methods.derpp import DERpp
from mlcil.methods.dgr import DGR
from mlcil.methods.dkt import DKT
from mlcil.methods.e2e import E2E
from mlcil.methods.finetune import Finetune
from mlcil.methods.frozen_rows import FrozenRows
from mlcil.methods.icarl import ICaRL
from mlcil.methods.kbk import KBK
from mlcil.methods.kept_features import KeptFeatures
from mlcil.methods.krt import KRT
from mlcil.methods.lwf import LwF
from mlcil.methods.lwf_mc import LwFMC
from mlcil.methods.lwf_synthetic import LwFSynthetic
from mlcil.methods.multi_lane import MultiLane
from mlcil.methods.oewc import OEWC
from mlcil.methods.pod import POD
from mlcil.methods.rclp import RCLP
from mlcil.methods.rdfcil import RDFCIL
from mlcil.methods.ridge import Ridge
from mlcil.methods.tpcil import TPCIL
from mlcil.registry import METHODS

#: other types that a config may name: the method that it is, and the memory's selections when the name says which
ALIASES: dict[str, tuple[type[Method], tuple[str, ...]]] = {
    "ER": (Finetune, ("reservoir", "random", "herding")),
    "PRS": (Finetune, ("prs",)),
    "OCDM": (Finetune, ("ocdm",)),
    "SingleLabelDGR": (DGR, ()),
    "SingleLabelDeepInversion": (DeepInversion, ()),
    "SingleLabelE2E": (E2E, E2E.memory_selections),
    "SingleLabelFinetune": (Finetune, ()),
    "SingleLabelLwF": (LwF, ()),
    "SingleLabelLwFMC": (LwFMC, ()),
    "SingleLabelLwFSynthetic": (LwFSynthetic, ()),
}
for _name, (_method, _selections) in ALIASES.items():
    _alias = type(_name, (_method,), {"__doc__": _method.__doc__, "memory_selections": _selections})
    METHODS.register_module(_name, module=_alias)

__all__ = [
    "ABD",
    "AGCN",
    "ALIASES",
    "CSC",
    "DGR",
    "DKT",
    "E2E",
    "KBK",
    "KRT",
    "OEWC",
    "POD",
    "RCLP",
    "RDFCIL",
    "TPCIL",
    "BiC",
    "DAFormer",
    "DERpp",
    "DeepInversion",
    "Finetune",
    "FrozenRows",
    "ICaRL",
    "KeptFeatures",
    "LwF",
    "LwFMC",
    "LwFSynthetic",
    "MultiLane",
    "Ridge",
    "SingleLabelBiC",
]
