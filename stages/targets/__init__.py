"""What heads predict: classes, labels, numbers, soft labels. See docs/design.md."""
