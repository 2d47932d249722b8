_base_ = ["transformers_daformer_m.py"]

# DAFormer-S: one external key for all sessions; no official code stands behind it
network = dict(head=dict(edition="S"))
