# "LwF" of the tables without coreset.
method = dict(type="SingleLabelLwF", mu=1.0)
