"""Conditional DCGAN that synthesizes lesion images of a chosen class."""
