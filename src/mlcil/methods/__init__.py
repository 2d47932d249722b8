"""One file a method; importing this package registers them all."""

from mlcil.methods.abd import ABD
from mlcil.methods.finetune import Finetune
from mlcil.methods.krt import KRT
from mlcil.methods.pod import POD
from mlcil.methods.rdfcil import RDFCIL
from mlcil.methods.single_label_bic import SingleLabelBiC
from mlcil.methods.single_label_deep_inversion import SingleLabelDeepInversion
from mlcil.methods.single_label_dgr import SingleLabelDGR
from mlcil.methods.single_label_e2e import SingleLabelE2E
from mlcil.methods.single_label_finetune import SingleLabelFinetune
from mlcil.methods.single_label_lwf import SingleLabelLwF
from mlcil.methods.single_label_lwf_mc import SingleLabelLwFMC
from mlcil.methods.single_label_lwf_synthetic import SingleLabelLwFSynthetic

__all__ = [
    "ABD",
    "KRT",
    "POD",
    "RDFCIL",
    "Finetune",
    "SingleLabelBiC",
    "SingleLabelDGR",
    "SingleLabelDeepInversion",
    "SingleLabelE2E",
    "SingleLabelFinetune",
    "SingleLabelLwF",
    "SingleLabelLwFMC",
    "SingleLabelLwFSynthetic",
]
