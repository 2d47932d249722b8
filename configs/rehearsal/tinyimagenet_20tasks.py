_base_ = ["../_base_/abd_tinyimagenet_20tasks.py", "_method.py"]
