"""The work: images to manifests, a base to feature rows, feature rows to heads and figures."""
