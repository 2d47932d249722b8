"""Loss functions; nothing here knows of runners."""
