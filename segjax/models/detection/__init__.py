"""Mask R-CNN: anchors, region proposals, heads and outputs."""
