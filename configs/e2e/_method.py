# "E2E": 2000 images nearest to their class means, a second stage on them alone.
method = dict(type="SingleLabelE2E", mu=1.0)
memory = dict(total=2000, selection="nearest_coreset")
