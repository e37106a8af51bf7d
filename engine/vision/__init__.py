"""Pixels to faces and embeddings: detection, alignment, measures, networks. Knows no people."""
