_base_ = ["../_base_/abd_tinyimagenet_20tasks.py"]

method = dict(type="SingleLabelFinetune")  # "Base" of the tables
