_base_ = ["../_base_/abd_imagenet50_5tasks.py", "_method.py"]
