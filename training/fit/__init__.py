"""Prepared datasets to trained networks."""
