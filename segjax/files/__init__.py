"""File input and output: reading untrusted files within limits, atomic writing."""

__all__: list[str] = []
