"""One file a method; importing this package registers them all."""

from mlcil.methods.daformer import DAFormer
from mlcil.methods.dkt import DKT
from mlcil.methods.finetune import Finetune
from mlcil.methods.krt import KRT
from mlcil.methods.pod import POD

__all__ = ["DKT", "KRT", "POD", "DAFormer", "Finetune"]
