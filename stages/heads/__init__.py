"""Heads: their arrays and files, feature rows as a matrix, and fitting each kind.

Where rows lie, and which heads there are, is left to the pipeline package.
"""
