"""Scenes of handwritten digits, many an image, drawn from scikit-learn's digits without a download."""

task = "multi_label"
protocol = "B0-C2"
backbone = "small"
settings = dict(
    scenario=dict(dataset=dict(type="digits"), class_order="as_given"),
    network=dict(image_size=64),
)
