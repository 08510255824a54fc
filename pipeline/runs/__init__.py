"""Owns runs and their previews: extraction, heads, sweeps, fine-tuning, `status`, retention. Prints nothing (show/)."""
