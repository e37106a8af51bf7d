"""Kinds of messages, as python-telegram-bot filters them for handlers."""

from typing import Any

from telegram.ext import filters


class InAlbum(filters.MessageFilter):
    """A message of an album, be it a photo or not: the album is answered as a whole."""

    def filter(self, message: Any) -> bool:
        """Whether it is one."""
        return bool(message.media_group_id)


PICTURE = filters.PHOTO | (filters.Document.ALL & ~filters.ANIMATION) | InAlbum()
CLIP = filters.VIDEO_NOTE | filters.VIDEO | filters.ANIMATION
NEW = filters.ChatType.PRIVATE & filters.UpdateType.MESSAGE
EDITED = filters.ChatType.PRIVATE & filters.UpdateType.EDITED_MESSAGE
