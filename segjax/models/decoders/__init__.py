"""Decoders: feature maps to one map, or to a pyramid of maps."""
