"""Owns finding missing rows, and computing them as Dask tasks: read, embed, store. Not running a base (engines/)."""
