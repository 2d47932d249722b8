_base_ = ["../_base_/voc2007.py", "../_base_/lite0_linear.py"]

scenario = dict(base=0, increment=4)
method = dict(type="Finetune")
