# "LwF" of the tables without coreset.
method = dict(type="LwF")
