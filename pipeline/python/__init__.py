"""The public Python interface: `pipeline.open` and `BottleneckFeatures`. The work is done in the rooms below."""
