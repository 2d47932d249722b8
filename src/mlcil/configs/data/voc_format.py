"""Own photos in VOC's layout: scenario.dataset.root=FOLDER, and scenario.dataset.classes=[...] for their order."""

task = "multi_label"
protocol = None  # of one's own data nobody knows it
settings = dict(
    scenario=dict(
        dataset=dict(type="voc", root="datasets/voc_format", name="voc_format"),
        class_order="as_given",
    ),
    network=dict(image_size=224),
)
