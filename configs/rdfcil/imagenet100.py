_base_ = ["../_base_/rdfcil_imagenet100.py"]

scenario = dict(num_sessions=10)  # as the release; 5 and 20 are in imagenet100_5tasks.py and imagenet100_20tasks.py
