_base_ = ["imagenet1000_100-100.py"]
scenario = dict(joint=True)
