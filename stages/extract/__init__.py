"""Extraction: which rows are missing, and computing them as Dask tasks that read, embed and store.

How a base is run is left to engines/.
"""
