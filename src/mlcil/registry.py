"""What a config can name: methods and datasets."""

from mmengine.registry import Registry

METHODS = Registry("method", locations=["mlcil.methods"])
DATASETS = Registry("dataset", locations=["mlcil.datasets"])
