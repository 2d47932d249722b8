_base_ = ["../_base_/coco2014.py", "../_base_/krt_coco.py"]

scenario = dict(base=40, increment=10)
method = dict(token_weight=300.0)  # comment in the released YAML for B40 protocols
