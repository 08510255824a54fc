"""Owns the care of a cache: listing, verifying, removing, exporting and importing. Not who needs which rows (runs/)."""
