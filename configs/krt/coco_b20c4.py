_base_ = ["../_base_/coco2014.py", "../_base_/krt_coco.py"]

scenario = dict(base=20, increment=4)
