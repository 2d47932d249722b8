_base_ = ["../_base_/voc2007.py", "../_base_/krt_voc.py"]

scenario = dict(base=5, increment=3)
