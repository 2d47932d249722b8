# "DGR": a variational auto-encoder in place of a memory, on images in [0, 1].
method = dict(type="SingleLabelDGR", mu=1.0)
