"""pipeline.yaml: its fields, reading it, and `pipeline init`, which writes one.

What the fields mean on disk is left to project/.
"""
