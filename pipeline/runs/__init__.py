"""Runs and previews of them: extraction, heads, sweeps, fine-tuning, `status`, and who needs which rows.

Prints nothing.
"""
