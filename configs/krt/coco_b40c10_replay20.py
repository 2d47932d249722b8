_base_ = ["../_base_/coco2014.py", "../_base_/krt_coco.py"]

# KRT-R: 20 exemplars a class by herding
scenario = dict(base=40, increment=10)
method = dict(token_weight=300.0)  # comment in the released YAML for B40 protocols
memory = dict(per_class=20, deduplicate=True)
