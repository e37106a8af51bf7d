"""Folders of photos to prepared datasets: found, seen, audited, written down."""
