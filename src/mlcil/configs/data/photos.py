"""Own photos with labels of any form: data=PATH, or scenario.dataset.source=PATH."""

task = "multi_label"
protocol = None  # of one's own data nobody knows it
settings = dict(
    scenario=dict(dataset=dict(type="photos", source="datasets/labels.csv"), class_order="as_given"),
    network=dict(image_size=224),
)
