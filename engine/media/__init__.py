"""Strangers' bytes to pixels, by processes that can do nothing else. Knows nothing about faces."""
