"""Networks: backbones, heads and their parts. Nothing here knows of runners; import any of it alone."""
