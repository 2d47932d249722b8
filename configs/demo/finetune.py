_base_ = ["_linear.py"]

method = dict(type="Finetune")
