"""Data sets, scenarios, transforms; importing this package registers the data sets by name."""

from mlcil.datasets.cifar import CifarDataset, cifar10_dataset, cifar100_dataset
from mlcil.datasets.coco import CocoDataset
from mlcil.datasets.digits import digits_dataset, letters_dataset
from mlcil.datasets.voc import VocDataset
from mlcil.registry import DATASETS

DATASETS.register_module(name="coco", module=CocoDataset)
DATASETS.register_module(name="voc", module=VocDataset)
DATASETS.register_module(name="digits", module=digits_dataset)
DATASETS.register_module(name="cifar10", module=cifar10_dataset)
DATASETS.register_module(name="cifar100", module=cifar100_dataset)
DATASETS.register_module(name="letters", module=letters_dataset)

__all__ = ["CifarDataset", "CocoDataset", "VocDataset", "digits_dataset", "letters_dataset"]
