"""A tagger behind HTTP: for programs, for a person with a browser, and for Label Studio."""
