"""Networks that only predict, by the best engine at hand. ``session.py`` and what it imports know no torch."""
