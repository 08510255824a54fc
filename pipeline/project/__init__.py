"""Owns an opened pipeline.yaml: paths, cache, manifest, taps, keys, and parts for job arrays. Computes no row."""
