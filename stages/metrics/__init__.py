"""Figures of predictions: scores, intervals, calibration, folds, paired tests, plots. Fits no classifier."""
