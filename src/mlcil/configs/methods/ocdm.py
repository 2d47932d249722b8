"""OCDM: a memory whose class distribution is optimised; 1000 images."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="OCDM"), memory=dict(total=1000, selection="ocdm"))
