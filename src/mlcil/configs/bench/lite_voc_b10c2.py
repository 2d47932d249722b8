# Real photos on a laptop: the runs of lite_voc_b0c4.py, B10-C2; settings are chosen among the same ones, in B10-C2.
# python -m mlcil bench lite_voc_b10c2 scenario.dataset.root=FOLDER
_base_ = ["lite_voc_b0c4.py"]
title = "PASCAL VOC 2007, B10-C2, EfficientNet-Lite0, frozen backbone"
overrides = {"scenario.base": 10, "scenario.increment": 2}
