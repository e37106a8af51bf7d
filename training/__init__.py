"""The workshop: from folders of faces to bundles in run/models.

Sees faces only through `engine.detect` and `engine.align` and writes only through
`engine.bundle`, so that training and serving cannot drift apart.
"""
