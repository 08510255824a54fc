"""Facts of the bases, their weight files, and the recipe that decides a row's key.

Imports neither TensorFlow nor OpenVINO.
"""
