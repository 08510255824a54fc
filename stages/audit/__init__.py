"""What rows and pictures tell of a data set: copies, suspect labels, images unlike the rest of their class."""
