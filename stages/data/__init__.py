"""Image files and tables to a manifest with splits, and bytes to pixels. Not networks."""
