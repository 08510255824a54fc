"""Models judged after they were made: comparison, cross-validation, plots, reproduction.

Writes nothing under models/.
"""
