# R-DFCIL's main table on CIFAR-100: 5, 10 and 20 equal sessions (published figures could not be found) and half of the
# classes first, over three class orders.
title = "R-DFCIL, CIFAR-100"
seeds = [1]
class_orders = ["random:0", "random:1", "random:2"]
protocols = [dict(label=f"{n} tasks", overrides={"scenario.num_sessions": n, "scenario.base": 0}) for n in (5, 10, 20)]
protocols += [
    dict(
        label=f"half of the classes and {n} tasks",
        overrides={"scenario.num_sessions": n + 1, "scenario.base": 50},
        published=f"rdfcil_cifar100_half_{n}tasks",
    )
    for n in (5, 10, 25)
]
runs = [
    dict(label="ABD", config="abd/cifar100_5tasks"),
    dict(label="R-DFCIL", config="rdfcil/cifar100"),
]
