_base_ = ["../_base_/coco2014.py", "../_base_/lite0_ica.py"]

# KRT-R
scenario = dict(base=0, increment=10)
method = dict(type="KRT", token_weight=20.0)
memory = dict(per_class=20, deduplicate=True)
