"""pipeline.yaml: its fields, reading it, and `pipeline init`, which writes one.

Not the paths, keys and images that a file means on a disk (project/).
"""
