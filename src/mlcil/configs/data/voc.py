"""PASCAL VOC 2007: Annotations/, ImageSets/Main/, JPEGImages/ (or a folder that holds VOCdevkit/VOC2007).

1.4 labels an image over the 20 classes is the number in KRT's threshold search.
"""

task = "multi_label"
protocol = "B0-C4"
settings = dict(
    scenario=dict(dataset=dict(type="voc", root="datasets/voc2007", label_cardinality=1.4), class_order="as_given"),
    network=dict(image_size=224),
)
