"""Side by side with what a user would otherwise pick: same files, one run, alternating, medians."""
