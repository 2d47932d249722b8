"""One file a method; importing this package registers them all."""

from mlcil.methods.abd import ABD
from mlcil.methods.agcn import AGCN
from mlcil.methods.bic import BiC
from mlcil.methods.daformer import DAFormer
from mlcil.methods.derpp import DERpp
from mlcil.methods.dkt import DKT
from mlcil.methods.er import ER
from mlcil.methods.finetune import Finetune
from mlcil.methods.icarl import ICaRL
from mlcil.methods.krt import KRT
from mlcil.methods.lwf import LwF
from mlcil.methods.ocdm import OCDM
from mlcil.methods.oewc import OEWC
from mlcil.methods.pod import POD
from mlcil.methods.prs import PRS
from mlcil.methods.rdfcil import RDFCIL
from mlcil.methods.single_label_bic import SingleLabelBiC
from mlcil.methods.single_label_deep_inversion import SingleLabelDeepInversion
from mlcil.methods.single_label_dgr import SingleLabelDGR
from mlcil.methods.single_label_e2e import SingleLabelE2E
from mlcil.methods.single_label_finetune import SingleLabelFinetune
from mlcil.methods.single_label_lwf import SingleLabelLwF
from mlcil.methods.single_label_lwf_mc import SingleLabelLwFMC
from mlcil.methods.single_label_lwf_synthetic import SingleLabelLwFSynthetic
from mlcil.methods.tpcil import TPCIL

__all__ = [
    "ABD",
    "AGCN",
    "DKT",
    "ER",
    "KRT",
    "OCDM",
    "OEWC",
    "POD",
    "PRS",
    "RDFCIL",
    "TPCIL",
    "BiC",
    "DAFormer",
    "DERpp",
    "Finetune",
    "ICaRL",
    "LwF",
    "SingleLabelBiC",
    "SingleLabelDGR",
    "SingleLabelDeepInversion",
    "SingleLabelE2E",
    "SingleLabelFinetune",
    "SingleLabelLwF",
    "SingleLabelLwFMC",
    "SingleLabelLwFSynthetic",
]
