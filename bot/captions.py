"""The words below a card, from what the engine saw. Pure functions; knows nothing about Telegram.

The words follow the verdict. A percentile is only ever told as what it is: how many strangers of
a hundred look less like their own closest match.
"""

import math

from bot.texts import say
from engine.types import Analysis, Face, Match, Verdict

CAPTION_MAX = 1024
"""Telegram's limit on captions, in UTF-16 code units."""
_ALSO = 2  # further names in a caption


def whole(analysis: Analysis, seen: int, language: str) -> str:
    """What to say below a photo's card.

    Args:
        analysis: the faces on the card, at least one.
        seen: how many usable faces the photo has.
        language: a key of `texts.LANGUAGES`.
    """
    if len(analysis.faces) == 1:
        return one(analysis.faces[0], language)
    lines = [say(language, "lookalike.several", count=seen)]
    for number, face in enumerate(analysis.faces, 1):
        lines.append(
            say(language, "lookalike.numbered", number=number, words=brief(face, language))
        )
    if seen > len(analysis.faces):
        lines.append(say(language, "lookalike.largest", count=len(analysis.faces)))
    return fit("\n".join(lines))


def one(face: Face, language: str) -> str:
    """What to say below the card of one face."""
    if not face.matches:
        return say(language, "lookalike.nobody")
    best = face.matches[0]
    lines = [say(language, f"lookalike.{best.verdict.value}", name=best.name)]
    if best.verdict in (Verdict.STRONG, Verdict.SOME):
        lines.append(say(language, "lookalike.percentile", count=of_hundred(best)))
    others = [match.name for match in face.matches[1 : 1 + _ALSO]]
    if others and best.verdict is not Verdict.NONE:
        lines.append(say(language, "lookalike.also", names=" · ".join(others)))
    return fit("\n".join(lines))


def brief(face: Face, language: str) -> str:
    """One face in a few words, for a list."""
    if not face.matches:
        return say(language, "lookalike.brief_nobody")
    best = face.matches[0]
    return say(language, f"lookalike.brief_{best.verdict.value}", name=best.name)


def photo(analysis: Analysis, language: str) -> str:
    """One photo of an album in a few words."""
    return " · ".join(brief(face, language) for face in analysis.faces)


def longer(face: Face, language: str) -> str:
    """All the matches of a face, best first."""
    if not face.matches:
        return say(language, "lookalike.nobody")
    lines = [say(language, "lookalike.more")]
    for number, match in enumerate(face.matches, 1):
        words = say(language, "lookalike.more_line", name=match.name, percent=of_hundred(match))
        lines.append(say(language, "lookalike.numbered", number=number, words=words))
    lines.append(say(language, "lookalike.more_note"))
    return fit("\n".join(lines))


def of_hundred(match: Match) -> int:
    """How many strangers of a hundred look less like their closest match.

    Rounded down, and never a full hundred: a percentile rests on so many strangers and no more.
    """
    return min(99, max(0, math.floor(match.percentile)))


def fit(text: str, limit: int = CAPTION_MAX) -> str:
    """The text, cut where Telegram would refuse it."""
    units = text.encode("utf-16-le")
    if len(units) <= 2 * limit:
        return text
    return units[: 2 * (limit - 1)].decode("utf-16-le", "ignore") + "…"
