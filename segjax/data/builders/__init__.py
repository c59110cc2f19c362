"""TFDS builders, one for each data set."""
