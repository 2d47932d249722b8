"""One file a method; importing this package registers them all."""

from mlcil.methods.abd import ABD
from mlcil.methods.finetune import Finetune
from mlcil.methods.krt import KRT
from mlcil.methods.pod import POD
from mlcil.methods.rdfcil import RDFCIL

__all__ = ["ABD", "KRT", "POD", "RDFCIL", "Finetune"]
