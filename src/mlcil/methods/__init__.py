"""One file a method; importing this package registers them all."""

from mlcil.methods.agcn import AGCN
from mlcil.methods.bic import BiC
from mlcil.methods.derpp import DERpp
from mlcil.methods.er import ER
from mlcil.methods.finetune import Finetune
from mlcil.methods.icarl import ICaRL
from mlcil.methods.krt import KRT
from mlcil.methods.lwf import LwF
from mlcil.methods.ocdm import OCDM
from mlcil.methods.oewc import OEWC
from mlcil.methods.pod import POD
from mlcil.methods.prs import PRS
from mlcil.methods.tpcil import TPCIL

__all__ = ["AGCN", "ER", "KRT", "OCDM", "OEWC", "POD", "PRS", "TPCIL", "BiC", "DERpp", "Finetune", "ICaRL", "LwF"]
