"""What a person touches: the command line and pipeline.yaml."""
