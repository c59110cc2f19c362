"""File input and output: reading untrusted files within limits, atomic writing."""
