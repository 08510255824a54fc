"""Bases as Keras networks and TensorFlow graphs: building, loading weights, tracing.

A TensorFlow room; running a graph is left to engines/.
"""
