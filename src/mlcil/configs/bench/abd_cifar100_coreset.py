# Second table of ABD's README: CIFAR-100 with a memory of 2000 images, 5, 10 and 20 sessions, repetitions 0 to 2.
title = "ABD, CIFAR-100 with 2000 images"
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
    dict(label="Naive Rehearsal, 2000", config="rehearsal/cifar100_5tasks"),
    dict(label="LwF, 2000", config="lwf_coreset/cifar100_5tasks"),
    dict(label="E2E, 2000", config="e2e/cifar100_5tasks"),
    dict(label="BiC, 2000", config="bic/cifar100_5tasks"),
    dict(
        label="BiC, 2000, corrected predictions",
        config="bic/cifar100_5tasks",
        overrides={"method.correct_predictions": True},
    ),
    dict(label="ABD", config="abd/cifar100_5tasks"),
]
