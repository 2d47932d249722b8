# "Naive Rehearsal": 2000 random images, as many replayed as new ones.
method = dict(type="SingleLabelFinetune")
memory = dict(total=2000, selection="random_coreset")
