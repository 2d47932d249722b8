_base_ = ["../_base_/voc2007.py", "../_base_/lite0_linear.py"]

# upper bound: all classes in one session, same recipe
scenario = dict(base=0, increment=4, joint=True)
method = dict(type="Finetune")
