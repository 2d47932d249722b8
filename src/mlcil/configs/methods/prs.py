"""PRS: a reservoir that keeps rare classes; 1000 images."""

recipes = {"multi_label": "multi_label"}
settings = dict(method=dict(type="PRS"), memory=dict(total=1000, selection="prs"))
