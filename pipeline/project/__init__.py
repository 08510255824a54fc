"""Owns an opened pipeline.yaml: paths, cache, manifest, splits, taps, keys, parts for job arrays. Computes no row."""
