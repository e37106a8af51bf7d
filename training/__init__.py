"""The workshop: from folders of faces to bundles in run/models.

Sees faces only through `engine.vision.detect` and `engine.vision.align` and writes only through
`engine.bundle`, so that training and serving cannot drift apart.
"""
