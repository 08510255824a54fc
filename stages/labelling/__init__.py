"""What to label next: how figures grow with the number of images, and which images would teach a head most."""
