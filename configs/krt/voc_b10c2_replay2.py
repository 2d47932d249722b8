_base_ = ["../_base_/voc2007.py", "../_base_/krt_voc.py"]

# KRT-R: 2 exemplars a class by herding; an image may be stored once per class
scenario = dict(base=10, increment=2)
memory = dict(per_class=2, deduplicate=False)
