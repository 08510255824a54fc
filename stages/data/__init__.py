"""From image files and tables to a manifest with splits, and from bytes to pixels. Knows no network."""
