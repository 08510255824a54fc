"""Engines turn uint8 batches into feature rows, and are checked against each other.

Reading images and storing rows is left to extract/.
"""
