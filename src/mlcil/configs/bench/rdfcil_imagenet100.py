# R-DFCIL's main table on ImageNet-100 (published figures could not be found): one class order.
title = "R-DFCIL, ImageNet-100"
seeds = [1]
protocols = [dict(label=f"{n} tasks", overrides={"scenario.num_sessions": n}) for n in (5, 10, 20)]
runs = [dict(label="R-DFCIL", config="rdfcil/imagenet100")]
