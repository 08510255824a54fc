"""Owns the public Python interface, `pipeline.open` and `BottleneckFeatures`. Not what they call (runs/, serving/)."""
