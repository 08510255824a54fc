"""Digests and arrays on disk. Knows nothing of images, networks or labels."""
