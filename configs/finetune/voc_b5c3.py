_base_ = ["../_base_/voc2007.py", "../_base_/linear_voc.py"]

scenario = dict(base=5, increment=3)
method = dict(type="Finetune")
