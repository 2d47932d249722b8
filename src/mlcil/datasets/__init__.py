"""Data sets, scenarios, transforms; importing this package registers the data sets by name."""

from mlcil.datasets.cifar import CifarDataset, cifar10_dataset, cifar100_dataset
from mlcil.datasets.coco import CocoDataset
from mlcil.datasets.digits import SingleDigitsDataset, digits_dataset, letters_dataset
from mlcil.datasets.folder import FolderDataset
from mlcil.datasets.imagenet import ImageNetDataset
from mlcil.datasets.labels import LabelledPhotos, PhotosDataset, read_labels
from mlcil.datasets.tiny_imagenet import TinyImageNetDataset
from mlcil.datasets.voc import VocDataset
from mlcil.registry import DATASETS

for _name, _module in {
    "coco": CocoDataset,
    "voc": VocDataset,
    "digits": digits_dataset,
    "letters": letters_dataset,
    "cifar10": cifar10_dataset,
    "cifar100": cifar100_dataset,
    "tiny_imagenet": TinyImageNetDataset,
    "imagenet": ImageNetDataset,
    "folder": FolderDataset,
    "photos": PhotosDataset,
    "digits_single": SingleDigitsDataset,
}.items():
    DATASETS.register_module(name=_name, module=_module)

__all__ = [
    "CifarDataset",
    "CocoDataset",
    "FolderDataset",
    "ImageNetDataset",
    "LabelledPhotos",
    "PhotosDataset",
    "SingleDigitsDataset",
    "TinyImageNetDataset",
    "VocDataset",
    "digits_dataset",
    "letters_dataset",
    "read_labels",
]
