"""TFDS builders, one for each data set."""

__all__: list[str] = []
