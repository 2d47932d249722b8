# The ablation of the release: LwF on real and made images (in none of the tables).
method = dict(type="SingleLabelLwFSynthetic", mu=0.1, inversion=dict(iterations=10000))
