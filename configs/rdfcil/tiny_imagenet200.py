_base_ = ["../_base_/rdfcil_tiny_imagenet200.py"]

scenario = dict(
    num_sessions=10
)  # as the release; 5 and 20 are in tiny_imagenet200_5tasks.py and tiny_imagenet200_20tasks.py
