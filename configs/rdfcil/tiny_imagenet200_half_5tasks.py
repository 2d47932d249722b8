_base_ = ["../_base_/rdfcil_tiny_imagenet200.py"]

scenario = dict(base=100, num_sessions=6)
