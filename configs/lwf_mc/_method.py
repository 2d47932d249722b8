# "LwF.MC": binary cross-entropy as in the release; variant="softmax" is its first form.
method = dict(type="SingleLabelLwFMC")
