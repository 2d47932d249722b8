_base_ = ["../_base_/coco2014.py", "../_base_/krt_coco.py"]

# KRT-R with 1000 images in all
scenario = dict(base=0, increment=10)
memory = dict(total=1000, deduplicate=False)
