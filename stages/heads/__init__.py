"""Heads: their arrays and files, features as a matrix, and fitting each kind.

Not where rows are stored (cache/), nor which heads a project has (pipeline/).
"""
