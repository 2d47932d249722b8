_base_ = ["../_base_/rdfcil_tiny_imagenet200.py"]

scenario = dict(num_sessions=20)
