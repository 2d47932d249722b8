_base_ = ["../_base_/voc2007.py", "../_base_/linear_voc.py"]

scenario = dict(base=0, increment=4)
method = dict(type="Finetune")
