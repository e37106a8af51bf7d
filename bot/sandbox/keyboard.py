"""Telegram's rules for the buttons under a message, and for a message that asks for a reply.

Knows the shape of a reply markup; nothing about what a button does.
"""

from typing import Any

from bot.sandbox.errors import bad_request
from bot.sandbox.links import WrongLink, checked

MAX_DATA_BYTES = 64
MAX_BUTTONS = 100
MAX_PLACEHOLDER = 64
_ACTIONS = (
    "callback_data",
    "url",
    "web_app",
    "login_url",
    "switch_inline_query",
    "switch_inline_query_current_chat",
    "switch_inline_query_chosen_chat",
    "copy_text",
    "callback_game",
    "pay",
)
_OTHER_MARKUP = ("keyboard", "remove_keyboard")


def reply_markup(markup: object) -> dict[str, Any] | None:
    """What a new message carries below it, checked: inline keyboard, forced reply, or None.

    Reply keyboards are accepted and not shown.

    Raises:
        ApiError: 400, as Telegram words it.
    """
    if isinstance(markup, dict) and markup.get("force_reply") is True:
        return _forced_reply(markup)
    if isinstance(markup, dict) and any(key in markup for key in _OTHER_MARKUP):
        return None
    return inline_keyboard(markup)


def inline_keyboard(markup: object) -> dict[str, Any] | None:
    """The inline keyboard of a reply markup, the only kind for edits; None where there is none.

    Raises:
        ApiError: 400, as Telegram words it.
    """
    if markup is None or markup == {}:
        return None
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    if "inline_keyboard" not in markup:
        if any(key in markup for key in (*_OTHER_MARKUP, "force_reply")):
            raise bad_request("inline keyboard expected")
        raise bad_request("can't parse reply keyboard markup JSON object")
    rows = markup["inline_keyboard"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise bad_request('field "inline_keyboard" of the InlineKeyboardMarkup must be an Array')
    checked = [[_button(button) for button in row] for row in rows if row]
    if sum(len(row) for row in checked) > MAX_BUTTONS:
        raise bad_request("reply markup is too long")
    return {"inline_keyboard": checked} if checked else None


def _forced_reply(markup: dict[str, Any]) -> dict[str, Any]:
    placeholder = markup.get("input_field_placeholder", "")
    if not isinstance(placeholder, str) or len(placeholder) > MAX_PLACEHOLDER:
        raise bad_request("REPLY_MARKUP_TOO_LONG")
    asked: dict[str, Any] = {"force_reply": True}
    return {**asked, "input_field_placeholder": placeholder} if placeholder else asked


def _button(button: object) -> dict[str, Any]:
    if not isinstance(button, dict):
        raise bad_request("can't parse inline keyboard button: expected an Object")
    text = button.get("text")
    if not isinstance(text, str):
        raise bad_request("can't parse inline keyboard button: Can't find field \"text\"")
    if not text.strip():
        raise bad_request("inline keyboard button text must be non-empty")
    if not any(action in button for action in _ACTIONS):
        raise bad_request(
            "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"
        )
    if "callback_data" in button:
        data = button["callback_data"]
        if not isinstance(data, str) or not 1 <= len(data.encode()) <= MAX_DATA_BYTES:
            raise bad_request("BUTTON_DATA_INVALID")
    if "url" not in button:
        return dict(button)
    try:
        return {**button, "url": checked(str(button["url"]))}
    except WrongLink as error:
        raise bad_request(f"inline keyboard button {error}") from None
