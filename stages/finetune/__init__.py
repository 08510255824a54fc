"""Training the last blocks of a base together with a head, from cached boundary maps on.

A TensorFlow room; results and checkpoints are placed by the pipeline package.
"""
