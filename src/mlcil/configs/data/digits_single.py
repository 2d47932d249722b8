"""scikit-learn's handwritten digits, one class an image, without a download. Not mirrored: digits are not symmetric."""

task = "single_label"
protocol = "5-tasks"
tags = ("small_images",)
classes = 10
backbone = "small"
settings = dict(
    scenario=dict(dataset=dict(type="digits_single"), class_order="as_given"),
    network=dict(image_size=16),
    train_transform=dict(cutout=0.0, randaugment=False, crop="padded", padding=2),
)
