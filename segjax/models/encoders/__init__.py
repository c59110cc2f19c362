"""Encoders: an image to feature maps, from fine to coarse."""
