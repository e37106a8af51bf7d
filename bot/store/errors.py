"""The one fault of the store."""


class StoreError(Exception):
    """What is stored cannot be used; the message says what to do.

    Nobody is let in while it is raised. Its text has no parameter, id, key or embedding in it.
    """
