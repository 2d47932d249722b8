"""MS-COCO 2014 as its site ships it: annotations/, train2014/, val2014/.

2.9 labels an image over the 80 classes is the number in KRT's threshold search.
"""

task = "multi_label"
protocol = "B0-C10"
settings = dict(
    scenario=dict(
        dataset=dict(type="coco", root="datasets/coco2014", label_cardinality=2.9), class_order="lexicographic"
    ),
    network=dict(image_size=224),
)
