"""Where the sandbox lets others make clips from photos: the page offers what a performer can do.

The sandbox itself sees no faces, so it has no performer unless it is lent one.
"""

from collections.abc import Mapping
from typing import Protocol

STEPS = frozenset("soud")
"""Letters of what a head does: to one side, to the other, up, down."""
MOST_STEPS = 8


class Performer(Protocol):
    """Makes a clip in which the face of a photo does a sequence of steps."""

    @property
    def ways(self) -> Mapping[str, bool]:
        """Ways to do it, by a name that the page has a word for; whether it takes two people."""
        ...

    async def perform(self, photo: bytes, *, steps: str, way: str, other: bytes | None) -> bytes:
        """A clip, MP4 or WebM.

        Args:
            photo: a picture file.
            steps: letters of `STEPS`, in their order.
            way: one of `ways`.
            other: a picture file of somebody else, where the way takes two people.

        Raises:
            UserError: there is nobody in a photo, or the steps are none.
        """
        ...
