# R-DFCIL's main table on Tiny-ImageNet-200: 5, 10 and 20 equal sessions (published figures could not be found) and
# half of the classes first, over three class orders.
title = "R-DFCIL, Tiny-ImageNet-200"
seeds = [1]
class_orders = ["random:0", "random:1", "random:2"]
protocols = [dict(label=f"{n} tasks", overrides={"scenario.num_sessions": n, "scenario.base": 0}) for n in (5, 10, 20)]
protocols += [
    dict(
        label=f"half of the classes and {n} tasks",
        overrides={"scenario.num_sessions": n + 1, "scenario.base": 100},
        published=f"rdfcil_tiny_imagenet200_half_{n}tasks",
    )
    for n in (5, 10, 25)
]
runs = [
    dict(label="ABD", config="abd/tinyimagenet_20tasks", overrides={"scenario.dataset.class_ids": "wnids"}),
    dict(label="R-DFCIL", config="rdfcil/tiny_imagenet200"),
]
