"""Bases as Keras networks and TensorFlow graphs: building, loading weights, tracing.

Not running a graph (engines/). A TensorFlow room.
"""
