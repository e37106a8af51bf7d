"""Embeddings to people: galleries, classifiers, and what their similarities are worth."""
