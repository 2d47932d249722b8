"""Bad settings, benches and files that stand for configs: each gives its sentence before anything is trained."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import hostile_files as f
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from refusals import case, check_refused

from mlcil.engine.config import load_config
from mlcil.errors import UserError
from mlcil.registry import DATASETS, METHODS, registered

# an override and the beginning of its sentence: found without data, and with them
EARLY = [
    ("empty_classes=foo", "empty_classes is 'foo'"),
    ("train_cfg.save_interval='x'", "train_cfg.save_interval is 'x'"),
    ("optim_wrapper.clip_grad=3", "optim_wrapper.clip_grad is 3"),
    ("optim_wrapper.clip_grad={}", "optim_wrapper.clip_grad has no 'max_norm'"),
    ("optim_wrapper.clip_grad={'max_norm':'x'}", "optim_wrapper.clip_grad.max_norm is 'x'; expected a number above 0"),
    ("optim_wrapper.clip_grad={'max':1}", "unknown key 'max' in optim_wrapper.clip_grad"),
    ("optim_wrapper.clip_grad={'type':'x','max_norm':1}", "optim_wrapper.clip_grad.type is 'x'"),
    ("param_scheduler=[{'type':'StepLR'}]", "param_scheduler StepLR has no 'step_size'"),
    ("param_scheduler=[{'type':'os'}]", "param_scheduler has the type 'os'"),
    ("param_scheduler=[{}]", "param_scheduler has the type None"),
    ("param_scheduler=3", "param_scheduler in the config is 3"),
    (
        "param_scheduler=[{'type':'LinearLR','start_factor':5}]",
        "param_scheduler LinearLR: Starting multiplicative factor should betwee",
    ),
    (
        "param_scheduler=[{'type':'OneCycle','pct_start':5}]",
        "param_scheduler OneCycle: Expected float between 0 and 1 pct_start, bu",
    ),
    (
        "param_scheduler=[{'type':'OneCycle','pct_start':0}]",
        "param_scheduler OneCycle: Expected float between 0 and 1 pct_start, bu",
    ),
    ("param_scheduler=[{'type':'Steps','milestones':3}]", "param_scheduler.milestones is 3"),
    (
        "param_scheduler=[{'type':'Steps','constant':1.0}]",
        "param_scheduler Steps: a constant rate at the end needs both constant_",
    ),
    ("optim_wrapper.optimizer.type=LBFGS", "unknown key 'weight_decay'"),
    ("optim_wrapper.optimizer.type=SparseAdam", "unknown key 'weight_decay'"),
    ("optim_wrapper.optimizer.type=lr_scheduler", "optim_wrapper.optimizer.type is 'lr_scheduler'"),
    ("optim_wrapper.optimizer.type=Muon", "optim_wrapper.optimizer: Muon only supports 2D parameters whereas we f"),
    ("optim_wrapper.optimizer.lr=x", "optim_wrapper.optimizer.lr is 'x'; expected a number"),
    ("optim_wrapper.optimizer.lr=-1", "optim_wrapper.optimizer: Invalid learning rate: -1"),
    ("optim_wrapper.optimizer.lr=nan", "optim_wrapper.optimizer: '<=' not supported between instances of 'floa"),
    ("optim_wrapper.optimizer.lr=inf", "optim_wrapper.optimizer: '<=' not supported between instances of 'floa"),
    ("optim_wrapper.optimizer.lr=1e400", "optim_wrapper.optimizer: a step gives weights that are no numbers"),
    ("optim_wrapper.optimizer.weight_decay=x", "optim_wrapper.optimizer.weight_decay is 'x'; expected a number"),
    ("optim_wrapper.optimizer.betas=3", "optim_wrapper.optimizer.betas is 3; expected a list of 2 values"),
    ("optim_wrapper.optimizer.betas=(0.9,)", "optim_wrapper.optimizer.betas is (0.9,); expected a list of 2 values"),
    ("optim_wrapper.optimizer=3", "optim_wrapper.optimizer is 3"),
    ("optim_wrapper.constructor=x", "optim_wrapper.constructor is 'x'"),
    ("optim_wrapper.constructor=os", "optim_wrapper.constructor is 'os'"),
    ("optim_wrapper.paramwise_cfg=3", "optim_wrapper.paramwise_cfg is 3"),
    ("optim_wrapper.paramwise_cfg={'backbone_lr_mult':-1}", "optim_wrapper.paramwise_cfg.backbone_lr_mult is -1"),
    ("optim_wrapper.accumulative_counts=0", "optim_wrapper.accumulative_counts is 0"),
    ("optim_wrapper.accumulative_counts=10**12", "optim_wrapper.accumulative_counts is '10**12'"),
    ("deterministic=foo", "deterministic is 'foo'"),
    ("train_dataloader.batch_size=1000000000000", "train_dataloader.batch_size is 1000000000000"),
    ("test_dataloader.batch_size=1000000000000", "test_dataloader.batch_size is 1000000000000"),
    ("train_dataloader.num_workers=100000", "train_dataloader.num_workers is 100000"),
    ("train_dataloader.num_workers=-1", "train_dataloader.num_workers is -1"),
    ("train_cfg=0", "train_cfg in the config is 0; expected a dictionary of options"),
    ("optim_wrapper=''", "optim_wrapper in the config is ''; expected a dictionary of options"),
    ("train_cfg.max_epochs=0", "train_cfg.max_epochs is 0"),
    ("train_cfg.max_epochs=1e9", "train_cfg.max_epochs is 1000000000.0"),
    ("train_cfg.max_epochs=1000000000000", "train_cfg.max_epochs is 1000000000000"),
    ("train_cfg.base_lr=nan", "train_cfg.base_lr is 'nan'"),
    ("train_cfg.base_lr=inf", "train_cfg.base_lr is 'inf'"),
    ("train_cfg.stop_after_session=-1", "train_cfg.stop_after_session is -1"),
    ("train_cfg.repeated_augmentation=1000000", "train_cfg.repeated_augmentation is 1000000"),
    ("train_cfg.val_interval=x", "train_cfg.val_interval is 'x'"),
    ("seed=99999999999999999999999", "seed is 99999999999999999999999"),
    ("seed=-1", "seed is -1"),
    ("seed=1.5", "seed is 1.5"),
    ("seed=x", "seed is 'x'"),
    ("threads=0", "threads is 0"),
    ("threads=1000000", "threads is 1000000"),
    ("threads=x", "threads is 'x'"),
    ("name=a/b", "run name 'a/b' must be a plain folder name, without slashes"),
    ("name=..", "run name '..' must be a plain folder name, without slashes"),
    ("name=.", "run name '.' must be a plain folder name, without slashes"),
    ("log_root=3", "log_root is 3"),
    ("checkpoint_root=None", "checkpoint_root is None"),
    ("precision=foo", "precision is 'foo'"),
    ("precision=3", "precision is 3"),
    ("log_level=foo", "log_level is 'foo'"),
    ("log_interval=0", "log_interval is 0"),
    ("compile=3", "compile is 3"),
    ("plugins=3", "plugins is 3"),
    ("plugins=['x.py']", "x.py does not exist"),
    ("plugins=[3]", "3 does not exist"),
    ("plugins=['.']", "does not exist"),
    ("plugins=['/dev/null']", "plugins: /dev/null does not exist"),
    ("custom_hooks=3", "custom_hooks in the config is 3"),
    ("custom_hooks=[3]", "custom_hooks in the config is [3]"),
    ("custom_hooks=[{'type':'x'}]", "custom_hooks has the type 'x'"),
    ("custom_hooks=[{'type':'os'}]", "custom_hooks has the type 'os'"),
    ("image_cache=3", "image_cache in the config is 3"),
    ("image_cache.limit_gb=nan", "image_cache.limit_gb is 'nan'"),
    ("image_cache.limit_gb=inf", "image_cache.limit_gb is 'inf'"),
    ("image_cache.limit_gb=x", "image_cache.limit_gb is 'x'"),
    ("image_cache.folder=3", "image_cache.folder is 3"),
    ("image_cache.enabled=3", "image_cache.enabled is 3"),
    ("auto_scale_lr=3", "auto_scale_lr in the config is 3"),
    ("auto_scale_lr={'base_batch_size':0}", "auto_scale_lr.base_batch_size is 0"),
    ("train_transform.cutout=x", "train_transform.cutout is 'x'"),
    ("train_transform.cutout=2", "train_transform.cutout is 2"),
    ("train_transform.cutout=nan", "train_transform.cutout is 'nan'"),
    ("train_transform.area=x", "train_transform.area is 'x'; expected a number"),
    ("train_transform.hole=[]", "train_transform.hole is []; expected a whole number"),
    ("train_transform.randaugment=x", "train_transform.randaugment is 'x'"),
    ("train_transform.x=1", "unknown key 'x'"),
    ("train_transform=3", "train_transform in the config is 3"),
    ("network=3", "network in the config is 3"),
    ("network.image_size=0", "network.image_size is 0"),
    ("network.image_size=-64", "network.image_size is -64"),
    ("network.image_size=x", "network.image_size is 'x'"),
    ("network.image_size=1000000000", "network.image_size is 1000000000"),
    ("network.image_size=64.0", "network.image_size is 64.0"),
    ("network.backbone=3", "network.backbone is 3"),
    ("network.backbone.layers=3", "network.backbone.layers is 3"),
    ("network.backbone.layers=[0,0,0,0]", "network.backbone.layers is [0, 0, 0, 0]"),
    ("network.backbone.layers=[-1,1,1,1]", "network.backbone.layers is [-1, 1, 1, 1]"),
    ("network.backbone.width=0", "network.backbone.width is 0"),
    ("network.backbone.width=-1", "network.backbone.width is -1"),
    ("network.backbone.width=nan", "network.backbone.width is 'nan'"),
    ("network.backbone.name=x", "network.backbone.name: backbone 'x' is neither one of tresnet, tresnet"),
    ("network.backbone.name=3", "network.backbone.name: backbone '3' is neither one of tresnet, tresnet"),
    ("network.backbone.name=os", "network.backbone.name: backbone 'os' is neither one of tresnet, tresne"),
    ("network.head=3", "network.head is 3"),
    ("network.head.type=x", "network.head.type is 'x'"),
    ("network.head.x=1", "unknown key 'x'"),
    ("network.frozen_statistics=x", "network.frozen_statistics is 'x'"),
    ("method=3", "method needs a 'type'"),
    ("method.type=x", "method.type 'x' is unknown"),
    ("method.type=os", "method.type 'os' is unknown"),
    ("method.type=csv", "method.type 'csv' is unknown"),
    ("method.type=a.b", "method.type 'a.b' is unknown"),
    ("method.x=1", "unknown key 'x'"),
    ("method.reference_batch=0", "method.reference_batch is 0; expected a whole number of at least 1"),
    ("method={'type':'LwF','temperature':0}", "method.temperature is 0; expected a number above 0"),
    ("method={'type':'LwF','weight':-1}", "method.weight is -1; expected a number of at least 0"),
    ("method={'type':'KRT','search':3}", "method.search is 3; expected a dictionary or None"),
    (
        "method={'type':'KRT','search':{'start':80}}",
        "method.search.start is 80; expected a number of at least 0 and of",
    ),
    ("method={'type':'KRT','search':{'x':1}}", "unknown key 'x' in method.search"),
    ("method={'type':'Ridge','strength':0.0}", "method.strength is 0.0; expected a number above 0 or None"),
    ("method={'type':'KeptFeatures','limit':0}", "method.limit is 0; expected a whole number of at least 1 or None"),
    ("method={'type':'KBK','threshold':1.0}", "method.threshold is 1.0; expected a number above 0 and below 1"),
    ("method={'type':'BiC','held_out':1}", "method.held_out is 1; expected a whole number of at least 2"),
    ("scenario.dataset.type=csv", "scenario.dataset.type 'csv' is unknown"),
    ("scenario.dataset.type=os", "scenario.dataset.type 'os' is unknown"),
    ("scenario.dataset.type=a.b.c", "scenario.dataset.type 'a.b.c' is unknown"),
    ("scenario.dataset.type=torch.nn.Module", "scenario.dataset.type 'torch.nn.Module' is unknown"),
    ("scenario.dataset=3", "scenario.dataset needs a 'type'"),
    ("scenario.dataset.root=3", "scenario.dataset.root is 3"),
    ("scenario.increment=x", "scenario.increment is 'x'"),
    ("scenario.name=3", "scenario.name is 3"),
    ("on_bad_image=x", "on_bad_image is 'x'"),
    ("local_accuracy=x", "local_accuracy is 'x'"),
    ("a.b.c=1", "unknown key 'a'"),
    ("=3", "'=3' is neither a config file nor an override"),
    ("scenario..base=1", "unknown key ''"),
    (".=1", "unknown key ''"),
    ("train_cfg.=1", "unknown key ''"),
    ("allow_leaky_weights=x", "allow_leaky_weights is 'x'"),
    ("channels_last=x", "channels_last is 'x'"),
    ("test_dataloader.precision=x", "test_dataloader.precision is 'x'"),
    ("sync_batch_norm=x", "sync_batch_norm is 'x'"),
    ("fold_batch_norm=2", "fold_batch_norm is 2"),
    ("network.backbone.layers=[1000000000,1,1,1]", "network.backbone.layers is [1000000000, 1, 1, 1]"),
    ("network.backbone.width=1e9", "network.backbone.width is 1000000000.0"),
]
LATE = [
    ("pretrained=3", "pretrained is 3"),
    ("pretrained=''", ". is a folder"),
    ("pretrained=.", ". is a folder"),
    ("pretrained=/dev/zero", "/dev/zero is no regular file"),
    ("pretrained=package:x", "weights 'package:x' are unknown"),
    ("network.backbone.layers=[1]", "network or method of the config: zip() argument 2 is shorter than argu"),
    ("scenario.dataset.root=/nowhere", "data folder /nowhere does not exist"),
    ("scenario.dataset.crowd=x", "crowd is 'x'"),
    ("scenario.base=-1", "base is -1, but expected a whole number of at least 0"),
    ("scenario.base=x", "scenario.base is 'x'"),
    ("scenario.base=100", "base is 100, but there are only 4 classes"),
    ("scenario.increment=0", "increment is 0, but expected a whole number of at least 1"),
    ("scenario.increment=100", "4 classes cannot be split into sessions of 100"),
    ("scenario.class_order=x", "class_order 'x' is unknown"),
    ("scenario.class_order=[1]", "class_order is a list of positions that has 1 different ones of 4"),
    ("scenario.class_order=[0,0,1,2]", "class_order is a list of positions that has 3 different ones of 4"),
    ("scenario.class_order=3", "scenario.class_order is 3"),
    ("scenario.class_order=[[1]]", "scenario.class_order is [[1]]"),
    ("scenario.num_sessions=0", "scenario needs exactly one of increment, the classes of a session, and"),
    ("scenario.num_sessions=3", "scenario needs exactly one of increment, the classes of a session, and"),
    ("scenario.max_sessions=0", "scenario.max_sessions is 0"),
    ("scenario.max_sessions=-1", "scenario.max_sessions is -1"),
    ("scenario.validation=1", "scenario.validation is 1"),
    ("scenario.validation=nan", "scenario.validation is 'nan'"),
    ("scenario.validation=0.0001", "coco: the test split has no image"),
    ("scenario.fixed_test_images=x", "fixed_test_images is 'x'"),
    ("memory=3", "memory in the config is 3"),
    ("memory={}", "memory needs exactly one budget: per_class=IMAGES or total=IMAGES"),
    ("memory={'total':-1}", "memory: the budget must be at least one image"),
    ("memory={'total':0}", "memory: the budget must be at least one image"),
    ("memory={'total':5,'selection':'x'}", "memory: selection 'x' is unknown"),
    ("memory={'per_class':'x'}", "memory.per_class is 'x'"),
    ("memory={'total':5,'labels':'x'}", "replay_labels is 'x'"),
    ("memory={'total':5,'per_class':5}", "memory needs exactly one budget: per_class=IMAGES or total=IMAGES"),
]

MADE_FOR_OTHERS = "is made for mmengine's own loops"
HOOK_VALUES = [
    ({"type": "EMAHook"}, MADE_FOR_OTHERS),
    ({"type": "EMAHook", "momentum": 2}, MADE_FOR_OTHERS),
    ({"type": "EMAHook", "ema_type": "x"}, MADE_FOR_OTHERS),
    ({"type": "EMAHook", "begin_iter": 1, "begin_epoch": 1}, MADE_FOR_OTHERS),
    ({"type": "EarlyStoppingHook"}, MADE_FOR_OTHERS),
    ({"type": "EarlyStoppingHook", "monitor": "x", "rule": "best"}, MADE_FOR_OTHERS),
    ({"type": "CheckpointHook", "interval": "x"}, MADE_FOR_OTHERS),
    ({"type": "LoggerHook", "interval": 0}, MADE_FOR_OTHERS),
    ({"type": "ParamSchedulerHook"}, MADE_FOR_OTHERS),
    ({"type": "ProfilerHook", "on_trace_ready": 3}, MADE_FOR_OTHERS),
    ({"type": "NPUProfilerHook"}, MADE_FOR_OTHERS),
    ({"type": "PrepareTTAHook", "tta_cfg": {}}, MADE_FOR_OTHERS),
    ({"type": "RuntimeInfoHook", "more": 1}, MADE_FOR_OTHERS),
    ({"type": "EmptyCacheHook", "before_epoch": "x"}, "custom_hooks EmptyCacheHook.before_epoch is 'x'; expected True"),
    ({"type": "EmptyCacheHook", "priority": "LOW"}, "unknown key 'priority' in custom_hooks EmptyCacheHook"),
    ({"type": "SyncBuffersHook", "x": 1}, "unknown key 'x' in custom_hooks SyncBuffersHook"),
    ({"type": "Validates"}, "custom_hooks Validates acts at after_val_epoch, which a run of sessions never comes to"),
    ({"type": "Counts", "every": "x"}, "custom_hooks Counts.every is 'x'; expected a whole number"),
    ({"type": "Counts", "every": 0}, "custom_hooks Counts: every must be positive; correct its values"),
    ({"type": "Counts", "every": 1, "often": 1}, "custom_hooks Counts: "),
    ({"type": "Counts"}, "custom_hooks Counts has no 'every'; set custom_hooks Counts.every to a whole number"),
]
SCHEDULE_VALUES = [
    ({"type": "StepLR"}, "param_scheduler StepLR has no 'step_size'"),
    ({"type": "StepLR", "step_size": 0}, "modulo by zero; correct its values"),
    ({"type": "StepLR", "step_size": -1}, "param_scheduler StepLR.step_size is -1; expected no number below 0"),
    ({"type": "StepLR", "step_size": 2, "begin": -3}, "param_scheduler StepLR.begin is -3; expected no number below 0"),
    ({"type": "StepLR", "step_size": 2, "convert_to_iter_based": "x"}, "StepLR.convert_to_iter_based is 'x'; expected"),
    ({"type": "StepLR", "step_size": 2, "by_epoch": False, "convert_to_iter_based": True}, "param_scheduler StepLR: "),
    ({"type": "StepLR", "step_size": 2.5}, "param_scheduler StepLR.step_size is 2.5; expected a whole number"),
    ({"type": "StepLR", "step_size": "x"}, "param_scheduler StepLR.step_size is 'x'"),
    ({"type": "StepLR", "step_size": 2, "gamma": "x"}, "param_scheduler StepLR.gamma is 'x'; expected a number"),
    ({"type": "StepLR", "step_size": 2, "gamma": -1}, "param_scheduler StepLR: lr is -1 after 2 steps"),
    ({"type": "StepLR", "step_size": 2, "begin": 5, "end": 2}, "end should be larger than begin"),
    ({"type": "StepLR", "step_size": 2, "begin": "x"}, "param_scheduler StepLR.begin is 'x'"),
    ({"type": "StepLR", "step_size": 2, "by_epoch": "x"}, "param_scheduler StepLR.by_epoch is 'x'; expected True"),
    ({"type": "StepLR", "step_size": 2, "last_step": 5}, "param_scheduler StepLR: "),
    ({"type": "StepLR", "step_size": 2, "x": 1}, "unknown key 'x' in param_scheduler StepLR"),
    ({"type": "MultiStepLR", "milestones": 3}, "param_scheduler MultiStepLR.milestones is 3; expected a list of whole"),
    ({"type": "MultiStepLR", "milestones": ["a"]}, "param_scheduler MultiStepLR.milestones is ['a']"),
    ({"type": "MultiStepLR", "milestones": [3, -1]}, "MultiStepLR.milestones is [3, -1]; expected no number below 0"),
    ({"type": "MultiStepMomentum", "milestones": [3], "gamma": -2}, "momentum is -1.8 after 3 steps"),
    ({"type": "CosineAnnealingLR", "T_max": "x"}, "param_scheduler CosineAnnealingLR.T_max is 'x'"),
    ({"type": "CosineAnnealingLR", "eta_min": -1}, "param_scheduler CosineAnnealingLR: lr is -"),
    ({"type": "CosineRestartLR", "periods": "x"}, "param_scheduler CosineRestartLR.periods is 'x'"),
    ({"type": "CosineRestartLR", "periods": [1], "restart_weights": [1, 2]}, "param_scheduler CosineRestartLR: "),
    ({"type": "LinearLR", "start_factor": 2}, "multiplicative factor should between 0 and 1"),
    ({"type": "ConstantLR", "factor": "x"}, "param_scheduler ConstantLR.factor is 'x'"),
    ({"type": "ExponentialLR", "gamma": 1e300}, "param_scheduler ExponentialLR: value cannot be converted"),
    ({"type": "PolyLR", "power": -1}, "param_scheduler PolyLR: 0.0 cannot be raised to a negative power"),
    ({"type": "OneCycleLR", "eta_max": 1, "total_steps": 10}, "param_scheduler OneCycleLR: Tried to step"),
    ({"type": "OneCycleLR", "eta_max": 1, "anneal_strategy": "x"}, "anneal_strategy"),
    ({"type": "ReduceOnPlateauLR"}, "param_scheduler ReduceOnPlateauLR waits for validations"),
    ({"type": "StepParamScheduler", "step_size": 1, "param_name": "x"}, "unknown key 'param_name'"),
    ({"type": "WarmupCosine", "warmup_lr": -1.0}, "param_scheduler WarmupCosine: lr is -1 after 1 steps"),
    ({"type": "WarmupCosine", "min_lr": -1.0}, "param_scheduler WarmupCosine: lr is -0."),
    (
        {"type": "WarmupCosine", "warmup_epochs": -1},
        "param_scheduler.warmup_epochs is -1; expected a whole number",
    ),
    ({"type": "Steps", "milestones": [-3]}, "param_scheduler.milestones is [-3]; expected a list of whole numbers"),
    ({"type": "Steps", "milestones": [3], "gamma": -1.0}, "param_scheduler Steps: lr is -1 after 3 steps"),
    ({"type": "Steps", "constant_from": 1, "constant": -1.0}, "param_scheduler Steps: lr is -1 after 1 steps"),
]
OPTIMISER_VALUES = [
    ({"type": "Adam", "amsgrad": "x"}, "optim_wrapper.optimizer.amsgrad is 'x'; expected True or False"),
    ({"type": "Adam", "maximize": 3}, "optim_wrapper.optimizer.maximize is 3; expected True or False"),
    ({"type": "Adam", "fused": "x"}, "optim_wrapper.optimizer.fused is 'x'; expected True or False or None"),
    ({"type": "Adam", "betas": (0.9, 0.99, 0.9)}, "betas is (0.9, 0.99, 0.9); expected a list of 2 values"),
    ({"type": "Adam", "betas": ["a", "b"]}, "betas is ['a', 'b']; expected a list of 2 values"),
    ({"type": "Adam", "betas": (2, 2)}, "optim_wrapper.optimizer: Invalid beta parameter"),
    ({"type": "Adam", "lr": [1]}, "optim_wrapper.optimizer.lr is [1]; expected a number"),
    ({"type": "Adam", "foreach": True, "fused": True}, "`fused` and `foreach` cannot be `True` together"),
    ({"type": "Adam", "differentiable": True}, "optim_wrapper.optimizer: "),
    ({"type": "SGD", "dampening": "x"}, "optim_wrapper.optimizer.dampening is 'x'; expected a number"),
    ({"type": "SGD", "momentum": 1e300}, "optim_wrapper.optimizer: a step gives weights that are no numbers"),
    ({"type": "SGD", "nesterov": True}, "Nesterov momentum requires a momentum"),
    ({"type": "RMSprop", "centered": "x"}, "optim_wrapper.optimizer.centered is 'x'"),
    ({"type": "RMSprop", "alpha": 5}, "optim_wrapper.optimizer: a step gives weights that are no numbers"),
    ({"type": "ASGD", "t0": "x"}, "optim_wrapper.optimizer.t0 is 'x'"),
    ({"type": "LBFGS"}, "missing 1 required positional argument: 'closure'"),
    ({"type": "SparseAdam"}, "SparseAdam does not support dense gradients"),
    ({"type": "Optimizer"}, "optim_wrapper.optimizer: "),
]
CLIP_VALUES = [
    ({"max_norm": -1}, "optim_wrapper.clip_grad.max_norm is -1; expected a number above 0"),
    ({"max_norm": 0}, "optim_wrapper.clip_grad.max_norm is 0; expected a number above 0"),
    ({"max_norm": True}, "optim_wrapper.clip_grad.max_norm is True; expected a number above 0"),
    ({"max_norm": 1, "norm_type": 0}, "optim_wrapper.clip_grad.norm_type is 0; expected a number above 0"),
    ({"max_norm": 1, "error_if_nonfinite": True}, "unknown key 'error_if_nonfinite' in optim_wrapper.clip_grad"),
    ({"max_norm": 1, "foreach": "x"}, "optim_wrapper.clip_grad.foreach is 'x'"),
    ({"max_norm": 1, "type": "x"}, "optim_wrapper.clip_grad.type is 'x'"),
    ({"type": "value", "clip_value": -1}, "optim_wrapper.clip_grad.clip_value is -1; expected a number above 0"),
    ({"type": "value", "max_norm": 1}, "unknown key 'max_norm' in optim_wrapper.clip_grad"),
    ({"type": "value"}, "optim_wrapper.clip_grad has no 'clip_value'"),
]
VALUES_OF_CLASSES = [
    *(("custom_hooks", [value], sentence) for value, sentence in HOOK_VALUES),
    *(("param_scheduler", [value], sentence) for value, sentence in SCHEDULE_VALUES),
    *(("optim_wrapper", {"optimizer": value}, sentence) for value, sentence in OPTIMISER_VALUES),
    *(("optim_wrapper.clip_grad", value, sentence) for value, sentence in CLIP_VALUES),
]
TAKEN = [
    ("custom_hooks", [{"type": "EmptyCacheHook", "after_iter": True}, {"type": "SyncBuffersHook"}]),
    ("custom_hooks", [{"type": "Counts", "every": 3}]),
    *(("param_scheduler", [value]) for value in (
        {"type": "StepLR", "step_size": 2, "verbose": False}, {"type": "MultiStepLR", "milestones": (3, 5)},
        {"type": "CosineAnnealingLR", "T_max": None, "eta_min": 1e-6}, {"type": "PolyLR", "by_epoch": False},
        {"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 21}, {"type": "ConstantMomentum"},
        {"type": "LinearLR", "begin": 30, "convert_to_iter_based": True},
    )),
    *(("optim_wrapper", {"optimizer": {"type": kind, "lr": 0.1, **more}}) for kind, more in (
        ("Adam", {"betas": [0.9, 0.99]}), ("AdamW", {"fused": None}), ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("Adafactor", {}), ("RMSprop", {"centered": True}),
    )),
    ("optim_wrapper.clip_grad", {"max_norm": 1, "norm_type": 2.0}),
    ("optim_wrapper.clip_grad", {"type": "value", "clip_value": 0.5}),
]  # fmt: skip


@HOOKS.register_module()
class Validates(Hook):
    """Acts where no run comes to."""

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        raise AssertionError


@HOOKS.register_module()
class Counts(Hook):
    """A hook of somebody's own: hands on what it does not know."""

    def __init__(self, every: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if every < 1:
            raise ValueError("every must be positive")


@HOOKS.register_module()
class ReadByCheckers(Hook):
    """Its hint cannot be resolved."""

    def __init__(self, path: NoSuchType = 0) -> None:  # noqa: F821
        self.path = path


ONE = '[dict(label="a", config="krt data=digits")]'


def bench(runs: str = ONE, more: str = "") -> f.Make:
    return f.content("bench.py", f'title = "t"\nruns = {runs}\n{more}\n')


CONFIGS = [
    case("yaml", f.content("c.yaml", "x: !!python/object/apply:os.mkdir [harm]"), "c.yaml is no python file"),
    case("json", f.content("c.json", "{}"), "c.json is no python file", "ends with .py"),
    case("text", f.content("c.txt", "hello"), "c.txt is no python file"),
    case("a base of yaml", f.yaml_base, "c.py cannot be read as a config", "Unsupported format: yaml"),
    case("leaves", f.content("c.py", "import sys\nsys.exit(0)"), "c.py cannot be read as a config (SystemExit: 0)"),
    case("raises", f.content("c.py", "raise ValueError('x\\ny')"), "c.py cannot be read", "ValueError: x y"),
    case("no python", f.content("c.py", "title ="), "c.py cannot be read as a config"),
    case("no text", f.content("c.py", b"\xff\xfe"), "c.py cannot be read as a config", "UnicodeDecodeError"),
    case("its own base", f.content("c.py", '_base_ = ["c.py"]'), "c.py cannot be read as a config (RecursionError"),
    case("a pipe", f.a_pipe("c.py"), "c.py is no config file"),
    case("a device", f.a_device("c.py"), "c.py is no config file"),
    case("a folder", f.a_folder("c.py"), "c.py is no config file"),
    case("empty", f.content("c.py", ""), "c.py has no 'scenario'"),
]  # fmt: skip
BENCHES = [
    case("two labels of one folder", bench('[dict(label=x, config="krt data=digits") for x in ("KRT a", "KRT-a")]'),
         "'KRT a' and 'KRT-a' would both write into the folder 'krt_a_seed1'"),
    case("a seed twice", bench(more="seeds = [1, 1]"), "would both write into the folder 'a_seed1'"),
    case("two protocols of one folder", bench(more='protocols = [dict(label="a b"), dict(label="a-b")]'), "'a_b'"),
    case("runs are a number", bench("3"), "bench.py: runs is 3; expected a list of dictionaries"),
    case("runs are a dictionary", bench("{}"), "bench.py: runs is {}"),
    case("no run", bench("[]"), "bench.py: runs is []; expected at least one"),
    case("a run is a word", bench('["a"]'), "runs is ['a']; expected a list of dictionaries"),
    case("a label is a number", bench('[dict(label=3, config="a")]'), "runs[0].label is 3"),
    case("no label", bench('[dict(config="a")]'), "runs[0] has no 'label'"),
    case("no config", bench('[dict(label="a")]'), "runs[0] has no 'config'"),
    case("a config is a number", bench('[dict(label="a", config=3)]'), "runs[0].config is 3; expected a text"),
    case("an empty config", bench('[dict(label="a", config="")]'), "'' is no config"),
    case("no such config", bench('[dict(label="a", config="none.py")]'), "none.py is no config file"),
    case("overrides are a number", bench('[dict(label="a", config="a", overrides=3)]'), "runs[0].overrides is 3"),
    case("a long label", bench('[dict(label="a" * 300, config="krt data=digits")]'), "is no name of a folder"),
    case("seeds are a number", bench(more="seeds = 3"), "bench.py: seeds is 3"),
    case("seeds are words", bench(more='seeds = ["x"]'), "bench.py: seeds is ['x']; expected a list of whole numbers"),
    case("no seed", bench(more="seeds = []"), "bench.py: seeds is []; expected at least one"),
    case("a negative seed", bench(more="seeds = [-1]"), "bench.py: seeds is [-1]"),
    case("orders are a number", bench(more="class_orders = 3"), "bench.py: class_orders is 3"),
    case("jobs are a word", bench(more='jobs = "x"'), "bench.py: jobs is 'x'"),
    case("no job", bench(more="jobs = 0"), "bench.py: jobs is 0; expected a whole number of at least 1"),
    case("all overrides are a number", bench(more="overrides = 3"), "bench.py: overrides is 3"),
    case("protocols are a number", bench(more="protocols = 3"), "bench.py: protocols is 3"),
    case("a protocol is a number", bench(more="protocols = [3]"), "bench.py: protocols is [3]"),
    case("preparations are a number", bench(more="prepare = 3"), "bench.py: prepare is 3"),
    case("a preparation of nothing", bench(more="prepare = [dict(config=None)]"), "prepare[0].config is None"),
    case("published is a list", bench(more="published = [1]"), "bench.py: published is [1]"),
    case("no such bound", bench(more='upper_bound = "b"'), "upper_bound is 'b'; expected the label of a run"),
    case("phases are a list", bench(more="phases = [1]"), "bench.py: phases is [1]"),
    case("paired is a word", bench(more='paired = "x"'), "bench.py: paired is 'x'"),
    case("the title is a number", f.content("bench.py", f"title = 3\nruns = {ONE}"), "bench.py: title is 3"),
    case("leaves", f.content("bench.py", "import sys\nsys.exit(0)"), "bench.py cannot be read as a config (SystemExit"),
    case("yaml", f.content("b.yaml", "x: !!python/object/apply:os.mkdir [harm]"), "b.yaml is no python file"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    return tiny.write_config(folder, tiny.coco_folder(folder / "data"))


@pytest.mark.parametrize(("override", "sentence"), EARLY)
def test_settings_without_data(config: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(config, [override])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value", "sentence"), VALUES_OF_CLASSES)
def test_values_of_classes(config: Path, key: str, value: Any, sentence: str) -> None:
    """What torch, mmengine or a hook of somebody's own would find out later, or never."""
    with pytest.raises(UserError) as error:
        load_config(config, ["train_cfg.max_epochs=20", f"{key}={value!r}"])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "value"), [*TAKEN, ("custom_hooks", [{"type": "ReadByCheckers", "path": 3}])])
def test_values_that_are_taken(config: Path, key: str, value: Any) -> None:
    load_config(config, ["train_cfg.max_epochs=20", f"{key}={value!r}"])


@pytest.mark.parametrize(("override", "sentence"), LATE)
def test_settings_with_data(capsys: pytest.CaptureFixture[str], config: Path, override: str, sentence: str) -> None:
    check_refused(capsys, config.parent, ["train", config, override, "--check"], (sentence,))


@pytest.mark.parametrize(("make", "expected"), CONFIGS)
def test_configs(capsys: pytest.CaptureFixture[str], tmp_path: Path, make: f.Make, expected: tuple[str, ...]) -> None:
    check_refused(capsys, tmp_path, ["plan", make(tmp_path)], expected)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("make", "expected"), BENCHES)
def test_benches(capsys: pytest.CaptureFixture[str], tmp_path: Path, make: f.Make, expected: tuple[str, ...]) -> None:
    check_refused(capsys, tmp_path, ["bench", make(tmp_path)], expected)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["csv", "os", "os.path", "a.b.c", "torch.nn.Module", "mlcil.cli", "", 3, None])
def test_a_type_is_a_registered_name(name: Any) -> None:
    assert registered(DATASETS, name) is None
    assert registered(METHODS, name) is None


VALUES = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.sampled_from(["", "x", "\0", "1"])
)
KEYS = (
    "train_cfg.max_epochs", "optim_wrapper.optimizer.lr", "optim_wrapper.optimizer.betas", "optim_wrapper.clip_grad",
    "param_scheduler", "network.image_size", "network.backbone.layers", "network.head.type", "method.type", "memory",
    "scenario.base", "scenario.dataset.type", "seed", "threads", "name", "train_transform", "image_cache.limit_gb",
)  # fmt: skip


@settings(
    max_examples=int(os.environ.get("MLCIL_EXAMPLES", "60")),
    deadline=None,
    derandomize="MLCIL_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(key=st.sampled_from(KEYS), value=VALUES | st.lists(VALUES, max_size=3))
def test_settings_of_any_value(config: Path, key: str, value: Any) -> None:
    with contextlib.suppress(UserError):
        load_config(config, [f"{key}={value!r}"])
