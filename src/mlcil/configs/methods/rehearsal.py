"""Naive Rehearsal of ABD's tables: 2000 random images, as many replayed as new ones."""

recipes = {"single_label": "abd_system"}
settings = dict(method=dict(type="SingleLabelFinetune"), memory=dict(total=2000, selection="random_coreset"))
