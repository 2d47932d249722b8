# "LwF" of the tables with coreset: 2000 random images, as many replayed as new ones.
method = dict(type="LwF")
memory = dict(total=2000, selection="random_coreset")
