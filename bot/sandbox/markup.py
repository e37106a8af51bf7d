"""Telegram's rich text: HTML to plain text with entities, and the entities it finds by itself.

Offsets and lengths are in UTF-16 code units, as in the Bot API. Knows nothing about messages.
Source: https://core.telegram.org/bots/api#html-style
"""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bot.sandbox.errors import bad_request
from bot.sandbox.links import WrongLink, checked, user_of

Entity = dict[str, Any]

_SIMPLE = {
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "blockquote": "blockquote",
    "code": "code",
    "pre": "pre",
}
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>")
_ATTRIBUTE = re.compile(r"([a-z-]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"']+)))?")
_REFERENCE = re.compile(r"&(?:lt|gt|amp|quot|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
_FOUND = (
    ("bot_command", re.compile(r"(?<![\w/])/[A-Za-z0-9_]{1,64}(?:@[A-Za-z0-9_]{3,32})?(?!\w)")),
    ("url", re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]]")),
    ("mention", re.compile(r"(?<!\w)@[A-Za-z][A-Za-z0-9_]{3,31}(?!\w)")),
    ("hashtag", re.compile(r"(?<!\w)#\w*[^\W\d]\w*")),
)


@dataclass(slots=True)
class _Open:
    tag: str
    start: int
    piece: int
    entity: Entity | None


def utf16_length(text: str) -> int:
    """Length in UTF-16 code units."""
    return len(text.encode("utf-16-le")) // 2


def rich_text(
    text: str,
    *,
    parse_mode: str | None,
    users: Callable[[int], dict[str, Any] | None],
    entities: list[Entity] | None = None,
) -> tuple[str, list[Entity]]:
    """Text as Telegram stores it: trimmed, with entities, found ones included.

    Args:
        text: as the sender wrote it.
        parse_mode: "HTML" or None.
        users: a User by id, or None for somebody the bot does not know, who is not mentioned.
        entities: entities given instead of a parse mode.

    Raises:
        ApiError: 400 for broken markup or a parse mode that the sandbox does not speak.
    """
    given = list(entities or ())
    if parse_mode:
        if parse_mode.lower() != "html":
            raise bad_request("unsupported parse_mode (the sandbox speaks HTML)")
        text, given = parse_html(text)
    return finish(text, [one for entity in given if (one := _known(entity, users)) is not None])


def parse_html(source: str) -> tuple[str, list[Entity]]:
    """Plain text and entities of Telegram's HTML; of whom it mentions, only the id is known.

    Raises:
        ApiError: 400 "can't parse entities: ...", as Telegram words it.
    """
    pieces: list[str] = []
    length = 0
    stack: list[_Open] = []
    entities: list[Entity] = []
    position = 0
    while position < len(source):
        if source[position] == "<":
            tag = _TAG.match(source, position)
            offset = len(source[:position].encode())
            if tag is None:
                raise _unparsable(f"Unsupported start tag at byte offset {offset}")
            closing, name, attributes = tag[1], tag[2].lower(), tag[3]
            if closing:
                _close(stack, entities, name, length, offset, pieces)
            else:
                entity = _entity(name, attributes, stack, offset)
                stack.append(_Open(name, length, len(pieces), entity))
            position = tag.end()
            continue
        reference = _REFERENCE.match(source, position) if source[position] == "&" else None
        stop = reference.end() if reference else _next_special(source, position + 1)
        piece = source[position:stop]
        pieces.append(html.unescape(piece) if reference else piece)
        length += utf16_length(pieces[-1])
        position = stop
    if stack:
        raise _unparsable(f'Can\'t find end tag corresponding to start tag "{stack[-1].tag}"')
    return "".join(pieces), entities


def finish(text: str, entities: list[Entity]) -> tuple[str, list[Entity]]:
    """Trim as Telegram does, move the entities along and add those it finds by itself."""
    lead = utf16_length(text) - utf16_length(text.lstrip())
    text = text.strip()
    total = utf16_length(text)
    kept = []
    for entity in entities:
        start = max(0, entity["offset"] - lead)
        stop = min(total, entity["offset"] + entity["length"] - lead)
        if stop > start:
            kept.append({**entity, "offset": start, "length": stop - start})
    taken = [(one["offset"], one["offset"] + one["length"]) for one in kept if _is_opaque(one)]
    for kind, pattern in _FOUND:
        for match in pattern.finditer(text):
            start = utf16_length(text[: match.start()])
            stop = start + utf16_length(match[0])
            if all(stop <= first or start >= last for first, last in taken):
                kept.append({"type": kind, "offset": start, "length": stop - start})
                taken.append((start, stop))
    return text, sorted(kept, key=lambda one: (one["offset"], -one["length"]))


def _is_opaque(entity: Entity) -> bool:
    return entity["type"] in {"code", "pre", "text_link", "text_mention"}


def _next_special(source: str, position: int) -> int:
    found = [index for mark in "<&" if (index := source.find(mark, position)) >= 0]
    return min(found, default=len(source))


def _entity(name: str, attributes: str, stack: list[_Open], offset: int) -> Entity | None:
    values = {
        match[1]: html.unescape(match[2] or match[3] or match[4] or "")
        for match in _ATTRIBUTE.finditer(attributes)
    }
    if name == "a":
        return {"type": "text_link", "url": values.get("href", "")}
    if name == "span":
        if values.get("class") != "tg-spoiler":
            raise _unparsable(f'Tag "span" must have class "tg-spoiler" at byte offset {offset}')
        return {"type": "spoiler"}
    if name == "tg-emoji":
        return {"type": "custom_emoji", "custom_emoji_id": values.get("emoji-id", "")}
    if name == "blockquote" and "expandable" in values:
        return {"type": "expandable_blockquote"}
    if name == "code" and stack and stack[-1].tag == "pre" and stack[-1].entity is not None:
        language = values.get("class", "").removeprefix("language-")
        if language:
            stack[-1].entity["language"] = language
        return None
    if name not in _SIMPLE:
        raise _unparsable(f'Unsupported start tag "{name}" at byte offset {offset}')
    return {"type": _SIMPLE[name]}


def _known(entity: Entity, users: Callable[[int], dict[str, Any] | None]) -> Entity | None:
    """An entity with the whole User of whom it mentions; None where nobody knows them.

    Raises:
        ApiError: 400, its link is none.
    """
    if entity["type"] == "text_link":
        try:
            return {**entity, "url": checked(str(entity.get("url", "")))}
        except WrongLink as error:
            raise bad_request(f"wrong message entity: {error}") from None
    if entity["type"] != "text_mention":
        return entity
    mentioned = entity.get("user")
    user_id = mentioned.get("id") if isinstance(mentioned, dict) else None
    user = users(user_id) if isinstance(user_id, int) else None
    return None if user is None else {**entity, "user": user}


def _link(link: str) -> Entity | None:
    user_id = user_of(link)
    if user_id is not None:
        return {"type": "text_mention", "user": {"id": user_id}}
    try:
        return {"type": "text_link", "url": checked(link)}
    except WrongLink:
        return None


def _close(
    stack: list[_Open],
    entities: list[Entity],
    name: str,
    length: int,
    offset: int,
    pieces: list[str],
) -> None:
    if not stack:
        raise _unparsable(f"Unexpected end tag at byte offset {offset}")
    last = stack.pop()
    if last.tag != name:
        raise _unparsable(
            f"Unmatched end tag at byte offset {offset}, "
            f'expected "</{last.tag}>", found "</{name}>"'
        )
    entity = last.entity
    if entity is not None and entity["type"] == "text_link":
        entity = _link(entity["url"] or "".join(pieces[last.piece :]))
    if entity is not None and length > last.start:
        place = {"offset": last.start, "length": length - last.start}
        entities.append({"type": entity["type"], **place, **entity})


def _unparsable(reason: str) -> Exception:
    return bad_request(f"can't parse entities: {reason}")
