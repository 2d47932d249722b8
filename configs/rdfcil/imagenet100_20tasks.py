_base_ = ["../_base_/rdfcil_imagenet100.py"]

scenario = dict(num_sessions=20)
