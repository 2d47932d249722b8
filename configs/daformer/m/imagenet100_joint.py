_base_ = ["imagenet100_10-10.py"]
scenario = dict(joint=True)
