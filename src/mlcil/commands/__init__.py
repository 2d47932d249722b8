"""One file a command; each has ``main(options)``, which gives the exit code."""
