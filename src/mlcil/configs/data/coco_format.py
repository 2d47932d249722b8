"""Own photos with a COCO-format json a split: scenario.dataset.root=FOLDER, and the names of the files inside."""

task = "multi_label"
protocol = None  # of one's own data nobody knows it
settings = dict(
    scenario=dict(
        dataset=dict(
            type="coco",
            root="datasets/coco_format",
            train_annotations="train.json",
            train_images="train",
            test_annotations="test.json",
            test_images="test",
            name="coco_format",
        ),
        class_order="as_given",
    ),
    network=dict(image_size=224),
)
