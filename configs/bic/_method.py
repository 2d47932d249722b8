# "BiC": 2000 images by herding, a part of them held out for the bias correction. The figures of the tables are of the
# raw logits; method.correct_predictions=True predicts with the corrected ones.
method = dict(type="SingleLabelBiC")
memory = dict(total=2000, selection="herding_coreset")
