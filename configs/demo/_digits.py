_base_ = ["_recipe.py"]

# Ten digit classes in five sessions of two; the backbone starts from the letters (configs/demo/pretrain.py).
scenario = dict(dataset=dict(type="digits"), class_order="as_given", base=0, increment=2)
pretrained = "saved_models/demo_pretrain/session_0.pth"
