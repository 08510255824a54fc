"""What this machine offers: processors, quiet imports of heavy packages, threads. Knows nothing of images or models."""
