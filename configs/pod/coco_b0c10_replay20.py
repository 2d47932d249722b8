_base_ = ["../_base_/coco2014.py", "../_base_/linear_coco.py"]

# the PODNet-style baseline released with KRT
scenario = dict(base=0, increment=10)
method = dict(type="POD", spatial=5.0, flat=180.0)
memory = dict(per_class=20, deduplicate=True)
