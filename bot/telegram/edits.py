"""Tells a picture put in another's place from an edited caption.

Telegram sends the whole message for either. Which picture each message had is kept in memory only.
Knows nothing about what is answered.
"""

from collections import OrderedDict
from collections.abc import Callable

from telegram import Update

from bot.telegram.incoming import attachment
from bot.telegram.request import Request


class Edits:
    """A route for updates, which leaves alone what was edited and has the picture that it had.

    Args:
        route: see `bot.telegram.incoming.route`.
        kept: of how many messages the picture is known; an edit of an older one counts as
            another picture.
    """

    def __init__(self, route: Callable[[Update], Request | None], kept: int) -> None:
        self._route = route
        self._kept = kept
        self._pictures: OrderedDict[tuple[int, int], str] = OrderedDict()

    def __call__(self, update: Update) -> Request | None:
        """Whose request an update is, or None."""
        request = self._route(update)
        if request is None or not request.messages:
            return request
        message = request.messages[0]
        picture = attachment(message)
        if picture is None:
            return request
        place = (message.chat.id, message.message_id)
        before = self._pictures.pop(place, None)
        self._pictures[place] = picture.file_unique_id
        if len(self._pictures) > self._kept:
            self._pictures.popitem(last=False)
        same = update.edited_message is not None and before == picture.file_unique_id
        return None if same else request
