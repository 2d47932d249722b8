_base_ = ["../_base_/voc2007.py", "../_base_/linear_voc.py"]

# the PODNet-style baseline released with KRT
scenario = dict(base=0, increment=4)
method = dict(type="POD", spatial=5.0, flat=180.0)
memory = dict(per_class=2, deduplicate=False)
