"""Engines turn uint8 batches into feature rows, and are checked against each other.

Not reading images or storing rows (extract/).
"""
