# ABD without a memory: inversion of 10000 steps, made images beside every batch.
method = dict(type="ABD", mu=0.1, inversion=dict(iterations=10000))
