"""Bundles are made, changed and described."""
