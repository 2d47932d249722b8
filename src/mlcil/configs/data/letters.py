"""Scenes made like the digits', of rendered letters: what the demo pretrains on."""

task = "multi_label"
protocol = "B0-C24"
backbone = "small"
settings = dict(
    scenario=dict(dataset=dict(type="letters")),
    network=dict(image_size=64),
)
