"""A trained method as a plain tagger."""
