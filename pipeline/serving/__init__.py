"""Recorded models in use: predictions for new images, exported models and features. Trains nothing."""
