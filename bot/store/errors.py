"""The fault of the store, and its one kind that says that somebody has interfered."""


class StoreError(Exception):
    """What is stored cannot be used; the message says what to do.

    Nobody is let in while it is raised. Its text has no parameter, id, key or embedding in it.
    """


class Tampered(StoreError):
    """Rows were changed by somebody without the key of the ids; see `bot.store.seals`.

    Args:
        person: the code of whom they are about; None for nobody's.
        tables: names of what was changed.
    """

    def __init__(self, person: bytes | None, tables: tuple[str, ...]) -> None:
        super().__init__(
            "What is stored was changed by somebody who has no key to it: look at what changed "
            "with: python -m bot db check, find out who can write to the database, and restore a "
            "backup, or let the person /forget and enroll anew. Where you have put an older "
            "database in place yourself, say so with: python -m bot db settle"
        )
        self.person = person
        self.tables = tables
