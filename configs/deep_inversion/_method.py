# "DeepInversion": the inversion of ABD, distillation on real and made images.
method = dict(type="SingleLabelDeepInversion", mu=1.0, inversion=dict(iterations=10000))
