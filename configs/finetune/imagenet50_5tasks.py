_base_ = ["../_base_/abd_imagenet50_5tasks.py"]

method = dict(type="SingleLabelFinetune")  # "Base" of the tables
