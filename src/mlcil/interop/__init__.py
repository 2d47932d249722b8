"""Other people's files: released checkpoints and pretrained weights, to and from our names."""
