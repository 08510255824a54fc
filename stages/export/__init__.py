"""A model as one network for other programs, Keras or ONNX.

A TensorFlow room; whether a file may be published is decided in pipeline/serving.
"""
