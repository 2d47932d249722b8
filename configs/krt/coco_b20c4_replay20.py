_base_ = ["../_base_/coco2014.py", "../_base_/krt_coco.py"]

# KRT-R: 20 exemplars a class by herding
scenario = dict(base=20, increment=4)
memory = dict(per_class=20, deduplicate=True)
