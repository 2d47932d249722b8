_base_ = ["../_base_/voc2007.py", "../_base_/lite0_ica.py"]

# KRT-R
scenario = dict(base=0, increment=4)
method = dict(type="KRT", token_weight=20.0)
memory = dict(per_class=2, deduplicate=False)
