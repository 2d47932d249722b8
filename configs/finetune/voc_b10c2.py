_base_ = ["../_base_/voc2007.py", "../_base_/linear_voc.py"]

scenario = dict(base=10, increment=2)
method = dict(type="Finetune")
