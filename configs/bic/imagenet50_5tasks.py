_base_ = ["../_base_/abd_imagenet50_5tasks.py", "_method.py"]

method = dict(second=dict(epochs=100, milestones=[30, 60, 80, 90], weight_decay=1e-4))
