"""What a run needs of the operating system."""
