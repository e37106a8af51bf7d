"""Every kind of update and message that Telegram sends, and what it is met with."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from telegram import Chat, Document, Message, PhotoSize, Update, User
from telegram.constants import MessageType, UpdateType

from bot import app, storing
from bot.sandbox import Sandbox
from bot.telegram.incoming import ALLOWED_UPDATES, route
from tests.bot import fakes
from tests.bot.fakes import FakeEngine


class Met(StrEnum):
    """What something is met with."""

    ROUTED = "routed"  # by what it carries, see MESSAGES, EDITED and the buttons of each module
    PICTURE = "picture"  # a card, or a login's capture, or why not
    CLIP = "clip"  # a login's capture, or what the bot is for
    WORDS = "words"  # a login's recovery code, or what the bot is for
    HINT = "hint"  # what the bot is for
    SILENCE = "silence"  # nobody waits for an answer
    NOT_ASKED = "not asked"  # Telegram is told not to send it


UPDATES = {
    UpdateType.MESSAGE: Met.ROUTED,
    UpdateType.EDITED_MESSAGE: Met.ROUTED,
    UpdateType.CALLBACK_QUERY: Met.ROUTED,
    # Channels, groups and their members: the bot speaks with people, in private.
    UpdateType.CHANNEL_POST: Met.NOT_ASKED,
    UpdateType.EDITED_CHANNEL_POST: Met.NOT_ASKED,
    UpdateType.CHAT_MEMBER: Met.NOT_ASKED,
    UpdateType.CHAT_JOIN_REQUEST: Met.NOT_ASKED,
    UpdateType.CHAT_BOOST: Met.NOT_ASKED,
    UpdateType.REMOVED_CHAT_BOOST: Met.NOT_ASKED,
    # A person who blocks the bot or takes it back, or gives a thumb up.
    UpdateType.MY_CHAT_MEMBER: Met.NOT_ASKED,
    UpdateType.MESSAGE_REACTION: Met.NOT_ASKED,
    UpdateType.MESSAGE_REACTION_COUNT: Met.NOT_ASKED,
    # What has to be switched on at @BotFather, and is of no use here.
    UpdateType.INLINE_QUERY: Met.NOT_ASKED,
    UpdateType.CHOSEN_INLINE_RESULT: Met.NOT_ASKED,
    UpdateType.BUSINESS_CONNECTION: Met.NOT_ASKED,
    UpdateType.BUSINESS_MESSAGE: Met.NOT_ASKED,
    UpdateType.EDITED_BUSINESS_MESSAGE: Met.NOT_ASKED,
    UpdateType.DELETED_BUSINESS_MESSAGES: Met.NOT_ASKED,
    UpdateType.MANAGED_BOT: Met.NOT_ASKED,
    UpdateType.GUEST_MESSAGE: Met.NOT_ASKED,
    # Polls and payments: the bot makes none.
    UpdateType.POLL: Met.NOT_ASKED,
    UpdateType.POLL_ANSWER: Met.NOT_ASKED,
    UpdateType.SHIPPING_QUERY: Met.NOT_ASKED,
    UpdateType.PRE_CHECKOUT_QUERY: Met.NOT_ASKED,
    UpdateType.PURCHASED_PAID_MEDIA: Met.NOT_ASKED,
}

MESSAGES = {
    MessageType.PHOTO: Met.PICTURE,
    MessageType.DOCUMENT: Met.PICTURE,
    MessageType.VIDEO_NOTE: Met.CLIP,
    MessageType.VIDEO: Met.CLIP,
    MessageType.ANIMATION: Met.CLIP,
    MessageType.TEXT: Met.WORDS,
    # Something else that a person sends.
    **dict.fromkeys(
        (
            MessageType.AUDIO,
            MessageType.CHECKLIST,
            MessageType.CONTACT,
            MessageType.DICE,
            MessageType.GAME,
            MessageType.GIVEAWAY,
            MessageType.GIVEAWAY_WINNERS,
            MessageType.INVOICE,
            MessageType.LIVE_PHOTO,  # Telegram sends `photo` beside it, which is a picture
            MessageType.LOCATION,
            MessageType.PAID_MEDIA,
            MessageType.PASSPORT_DATA,
            MessageType.POLL,
            MessageType.STICKER,
            MessageType.STORY,
            MessageType.SUCCESSFUL_PAYMENT,
            MessageType.VENUE,
            MessageType.VOICE,
        ),
        Met.HINT,
    ),
    # Properties of a message, whatever else it carries.
    **dict.fromkeys(
        (
            MessageType.BOOST_ADDED,
            MessageType.BUSINESS_CONNECTION_ID,
            MessageType.EFFECT_ID,
            MessageType.REPLY_TO_STORY,
            MessageType.SENDER_BOOST_COUNT,
            MessageType.SENDER_BUSINESS_BOT,
            MessageType.SUGGESTED_POST_INFO,
        ),
        Met.HINT,
    ),
    # Service messages: Telegram tells that something happened.
    **dict.fromkeys(
        (
            MessageType.CHANNEL_CHAT_CREATED,
            MessageType.CHAT_BACKGROUND_SET,
            MessageType.CHAT_OWNER_CHANGED,
            MessageType.CHAT_OWNER_LEFT,
            MessageType.CHAT_SHARED,
            MessageType.CHECKLIST_TASKS_ADDED,
            MessageType.CHECKLIST_TASKS_DONE,
            MessageType.CONNECTED_WEBSITE,
            MessageType.DELETE_CHAT_PHOTO,
            MessageType.DIRECT_MESSAGE_PRICE_CHANGED,
            MessageType.FORUM_TOPIC_CLOSED,
            MessageType.FORUM_TOPIC_CREATED,
            MessageType.FORUM_TOPIC_EDITED,
            MessageType.FORUM_TOPIC_REOPENED,
            MessageType.GENERAL_FORUM_TOPIC_HIDDEN,
            MessageType.GENERAL_FORUM_TOPIC_UNHIDDEN,
            MessageType.GIFT,
            MessageType.GIFT_UPGRADE_SENT,
            MessageType.GIVEAWAY_COMPLETED,
            MessageType.GIVEAWAY_CREATED,
            MessageType.GROUP_CHAT_CREATED,
            MessageType.LEFT_CHAT_MEMBER,
            MessageType.MANAGED_BOT_CREATED,
            MessageType.MESSAGE_AUTO_DELETE_TIMER_CHANGED,
            MessageType.MIGRATE_TO_CHAT_ID,
            MessageType.NEW_CHAT_MEMBERS,
            MessageType.NEW_CHAT_PHOTO,
            MessageType.NEW_CHAT_TITLE,
            MessageType.PAID_MESSAGE_PRICE_CHANGED,
            MessageType.PINNED_MESSAGE,
            MessageType.POLL_OPTION_ADDED,
            MessageType.POLL_OPTION_DELETED,
            MessageType.PROXIMITY_ALERT_TRIGGERED,
            MessageType.REFUNDED_PAYMENT,
            MessageType.SUGGESTED_POST_APPROVAL_FAILED,
            MessageType.SUGGESTED_POST_APPROVED,
            MessageType.SUGGESTED_POST_DECLINED,
            MessageType.SUGGESTED_POST_PAID,
            MessageType.SUGGESTED_POST_REFUNDED,
            MessageType.SUPERGROUP_CHAT_CREATED,
            MessageType.UNIQUE_GIFT,
            MessageType.USERS_SHARED,
            MessageType.VIDEO_CHAT_ENDED,
            MessageType.VIDEO_CHAT_PARTICIPANTS_INVITED,
            MessageType.VIDEO_CHAT_SCHEDULED,
            MessageType.VIDEO_CHAT_STARTED,
            MessageType.WEB_APP_DATA,
            MessageType.WRITE_ACCESS_ALLOWED,
        ),
        Met.SILENCE,
    ),
}

EDITED = {MessageType.PHOTO: Met.PICTURE, MessageType.DOCUMENT: Met.PICTURE}
"""Pictures put in another's place; other edited messages are met with silence.

A round video cannot be edited: one that says it was is refused where a login waits for it.
"""

ANSWERS = {
    True: {
        Met.PICTURE: "Flows.picture",
        Met.CLIP: "Flows.clip",
        Met.WORDS: "Flows.words",
        Met.HINT: "Account.hint",
    },
    False: {
        Met.PICTURE: "Lookalike.photo",
        Met.CLIP: "Account.hint",
        Met.WORDS: "Account.hint",
        Met.HINT: "Account.hint",
    },
}
"""The handlers, with the face login and without."""


def test_every_kind_is_in_the_tables() -> None:
    assert set(UPDATES) == set(UpdateType)
    assert set(MESSAGES) == set(MessageType)
    asked = {kind.value for kind, met in UPDATES.items() if met is not Met.NOT_ASKED}
    assert asked == set(ALLOWED_UPDATES)


def update(kind: MessageType, *, edited: bool = False) -> Update:
    """As little of an update as tells a message's kind."""
    carried: Any = {
        "text": "hello",
        "photo": [PhotoSize("f", "u", 9, 9)],
        "document": Document("f", "u", mime_type="image/png"),
        "new_chat_members": [object()],
        "new_chat_photo": [object()],
    }.get(kind, object())
    sent = Message(
        1,
        datetime(2026, 1, 1, tzinfo=UTC),
        Chat(1, Chat.PRIVATE),
        from_user=User(1, "x", is_bot=False),
        edit_date=datetime(2026, 1, 2, tzinfo=UTC) if edited else None,
        **{kind.value: carried},
    )
    return Update(1, edited_message=sent) if edited else Update(1, message=sent)


def met(application: app.App, one: Update) -> str:
    """The handler that answers an update; "silence" where none does."""
    if route(one) is None:
        return Met.SILENCE
    fitting = (each for each in application.handlers[0] if each.check_update(one))
    return next(fitting).callback.__qualname__


@pytest.mark.parametrize("login", [True, False], ids=["login", "no login"])
async def test_every_kind_of_message_is_met_as_the_tables_say(tmp_path: Path, login: bool) -> None:
    async with Sandbox() as sandbox:
        settings = fakes.settings(sandbox, tmp_path, face_login=login)
        async with storing.store(settings) as store:
            application, _ = app.build(settings, FakeEngine(), store)
    handlers = ANSWERS[login]
    for kind, expected in MESSAGES.items():
        assert met(application, update(kind)) == handlers.get(expected, expected), kind
    picture = "Flows.edited" if login else "Lookalike.photo"
    for kind in MESSAGES:
        meant = picture if kind in EDITED else Met.SILENCE
        if kind is not MessageType.VIDEO_NOTE:
            assert met(application, update(kind, edited=True)) == meant, kind
