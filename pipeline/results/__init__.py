"""What lies under models/: records, names, tags, predictions, and how records differ. Makes no model."""
