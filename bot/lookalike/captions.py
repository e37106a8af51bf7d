"""The words below a card, from what the engine saw. Pure functions; knows nothing about Telegram.

The first sentence names the nearest person, in words that follow the verdict: somebody is always
the nearest. How strong the likeness is comes as a second one, from a good likeness up.
"""

from bot.drawing import figures
from bot.lookalike.face_choice import LeftOut
from bot.texts import say
from engine.types import Analysis, Face, Verdict

CAPTION_MAX = 1024
"""Telegram's limit on captions, in UTF-16 code units."""
TEXT_MAX = 4096
"""Telegram's limit on messages, in UTF-16 code units."""
_ALSO = 2  # further names in a caption


def whole(analysis: Analysis, left_out: LeftOut, language: str) -> str:
    """What to say below a photo's card.

    Args:
        analysis: the faces on the card, at least one.
        left_out: how many are not on it.
        language: a key of `texts.LANGUAGES`.
    """
    if len(analysis.faces) == 1:
        lines = [one(analysis.faces[0], language)]
    else:
        count = len(analysis.faces) + left_out.smaller
        lines = [say(language, "lookalike.several", count=count)]
        for number, face in enumerate(analysis.faces, 1):
            words = brief(face, language)
            lines.append(say(language, "lookalike.numbered", number=number, words=words))
    # Where names are too long for all to fit, what is left out is told nevertheless.
    last = "".join(f"\n{sentence}" for sentence in _missing(left_out, language))
    return fit("\n".join(lines), CAPTION_MAX - _units(last)) + last


def one(face: Face, language: str) -> str:
    """What to say below the card of one face."""
    if not face.matches:
        return say(language, "lookalike.nobody")
    best = face.matches[0]
    lines = [_named(language, f"lookalike.{best.verdict.value}", name=best.name)]
    if best.verdict not in (Verdict.SOME, Verdict.FAINT):
        lines.append(f"{figures.strength(best, language)}.")
    following = [match.name for match in face.matches[1 : 1 + _ALSO]]
    if following:
        lines.append(_named(language, "lookalike.also", names=" · ".join(following)))
    return fit("\n".join(lines))


def _named(language: str, key: str, **names: str) -> str:
    """A sentence with names; one that ends in "Jr." ends the sentence."""
    return say(language, key, **names).replace("..", ".")


def brief(face: Face, language: str) -> str:
    """One face in a few words, for a list."""
    if not face.matches:
        return say(language, "lookalike.brief_nobody")
    best = face.matches[0]
    return say(language, f"lookalike.brief_{best.verdict.value}", name=best.name)


def photo(analysis: Analysis, left_out: LeftOut, language: str) -> str:
    """One photo of an album in a few words: arguments as in `whole`."""
    faces = " · ".join(brief(face, language) for face in analysis.faces)
    return ". ".join([faces, *_missing(left_out, language)])


def longer(face: Face, people: int | None, language: str) -> str:
    """The matches of a face with their shares, best first, and what all others have together.

    Where all of them are more than a caption takes, those that do not fit are among the others.

    Args:
        face: whose matches.
        people: how many people the bundle knows; None where that could not be learned.
        language: a key of `texts.LANGUAGES`.
    """
    if not face.matches:
        return say(language, "lookalike.nobody")
    count = len(face.matches)
    while count > 1 and _units(_listed(face, count, people, language)) > CAPTION_MAX:
        count -= 1
    return fit(_listed(face, count, people, language))


def fit(text: str, limit: int = CAPTION_MAX) -> str:
    """The text, cut where Telegram would refuse it."""
    if _units(text) <= limit:
        return text
    units = text.encode("utf-16-le")
    return units[: 2 * (limit - 1)].decode("utf-16-le", "ignore") + "…"


def _missing(left_out: LeftOut, language: str) -> list[str]:
    """Sentences about the faces that are not shown, none where all are."""
    counts = {"lookalike.smaller": left_out.smaller, "lookalike.unclear": left_out.unclear}
    return [say(language, key, count=count) for key, count in counts.items() if count]


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _listed(face: Face, count: int, people: int | None, language: str) -> str:
    """The first so many matches of a face, and the share of all others."""
    shown = face.matches[:count]
    shares, rest = figures.percents(shown, people)
    lines = [f"{figures.shared(people, language)}:"]
    for number, (match, percent) in enumerate(zip(shown, shares, strict=True), 1):
        words = _line(match.name, percent, language)
        lines.append(say(language, "lookalike.numbered", number=number, words=words))
    if people is None or people > count:
        lines.append(_line(figures.rest(people, count, language), rest, language))
    return "\n".join(lines)


def _line(name: str, percent: int, language: str) -> str:
    share = figures.spell(percent, language)
    return say(language, "lookalike.more_line", name=name, share=share)
