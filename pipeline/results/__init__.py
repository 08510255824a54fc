"""What lies under models/: records, names, tags, predictions, what tells unknown images, and how records differ.

Makes no model.
"""
