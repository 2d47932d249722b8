"""Runs: the mmengine runner, the loop over sessions, checkpoints and configs."""
