"""A pipeline.yaml opened: paths, cache, manifest, taps and keys, and shares of it for job arrays.

Computes no row and trains nothing.
"""
