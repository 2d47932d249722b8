# First table of ABD's README: CIFAR-100 without a memory, 5, 10 and 20 sessions, repetitions 0 to 2. Omega stands
# beside it, for which the upper bound is trained in every session.
title = "ABD, CIFAR-100 without a memory"
seeds = [0, 1, 2]
class_orders = ["random:0", "random:1", "random:2"]
paired = True
upper_bound = "UB"
protocols = [
    dict(label=f"{n} tasks", overrides={"scenario.num_sessions": n}, published=f"abd_cifar100_{n}tasks")
    for n in (5, 10, 20)
]
runs = [
    dict(label="UB", config="joint/cifar100_5tasks"),
    dict(label="Base", config="finetune/cifar100_5tasks"),
    dict(label="LwF", config="lwf/cifar100_5tasks"),
    dict(label="LwF.MC", config="lwf_mc/cifar100_5tasks"),
    dict(label="DGR", config="dgr/cifar100_5tasks"),
    dict(label="DeepInversion", config="deep_inversion/cifar100_5tasks"),
    dict(label="LwF, synthetic", config="lwf_synthetic/cifar100_5tasks"),
    dict(label="ABD", config="abd/cifar100_5tasks"),
]
