"""Metrics of score matrices; nothing here knows of runners."""
