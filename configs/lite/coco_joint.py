_base_ = ["../_base_/coco2014.py", "../_base_/lite0_linear.py"]

# upper bound: all classes in one session, same recipe
scenario = dict(base=0, increment=10, joint=True)
method = dict(type="Finetune")
