"""Settings as methods x data x protocol; :mod:`mlcil.configs.compose` puts them together.

A file of ``methods/``, ``data/``, ``recipes/`` (what several methods share) or ``backbones/`` has ``settings``, and
``on``: further settings for a word, or for several words at once, of what is asked for: a method, a recipe, a data set
or one of its ``tags``, a backbone, a protocol, ``multi_label`` or ``single_label``. ``bench/`` holds tables of runs.
"""
