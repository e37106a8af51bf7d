"""Both languages say the same things, and say everything that the code asks for."""

import ast
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bot.account import COMMANDS, LOGIN_COMMANDS
from bot.login.liveness import FailureReason
from bot.telegram.incoming import Reason
from bot.telegram.replies import TOAST_MAX
from bot.telegram.update_processor import Turned
from bot.texts import LANGUAGES, language_of, say, sentences
from engine.types import Verdict

BOT = Path(__file__).parents[2] / "bot"
# Keys that the code puts together, by their pattern in the code.
FAMILIES = {
    "turned.": {one.value for one in Turned},
    "refusal.": {one.value for one in Reason},
    "lookalike.": {one.value for one in Verdict},
    "lookalike.brief_": {one.value for one in Verdict},
    "figures.strength_": {one.value for one in (Verdict.IS, Verdict.SOME, Verdict.FAINT)},
    "commands.": {*COMMANDS, *LOGIN_COMMANDS},
    "liveness.": {one.value for one in FailureReason},
    "enroll.hint_": {"1", "2", "3", "4"},
    "verify.passed_": {"photo", "video"},
    "verify.failed_": {"photo", "video"},
    "verify.left_": {"photo", "video"},
    "verify.barred_": {"delay", "draws", "locked", "spent", "expired"},
    "notices.": {"unanswered", "failures", "locked"},
    "buttons.": {"agree", "decline", "wait", "keep"},
    "buttons.forget_": {"yes", "no"},
    "buttons.alerts_": {
        *("show", "code", "wait", "keep"),
        *("yes", "no", "stop", "leave"),
    },
    "alerts.": {
        *("confirmed", "confirmed_there", "declined", "declined_there"),
        *("stop_done", "stop_there", "leave_done", "leave_there"),
    },
    "verify.video_": {"replace", "alerts", "move"},
}


def entries(language: str) -> dict[str, Any]:
    return {
        f"{section}.{name}": sentence
        for section, names in sentences(language).items()
        for name, sentence in names.items()
    }


def forms(sentence: Any) -> dict[str, str]:
    return dict(sentence) if isinstance(sentence, Mapping) else {"": sentence}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_sentences_and_placeholders() -> None:
    first, *others = (entries(language) for language in LANGUAGES)
    for other in others:
        assert first.keys() == other.keys()
        for key, sentence in first.items():
            mine, theirs = forms(sentence), forms(other[key])
            assert mine.keys() == theirs.keys(), key
            for form, text in mine.items():
                assert placeholders(text) == placeholders(theirs[form]), (key, form)


def test_no_sentence_is_empty_or_left_untranslated() -> None:
    spanish, english = entries("es"), entries("en")
    for key, sentence in spanish.items():
        for form, text in forms(sentence).items():
            assert text.strip()
            bare = string.Formatter().parse(text)
            if any(re.search(r"[a-záéíóú]{3}", literal) for literal, *_ in bare):
                assert text != forms(english[key])[form], key


def asked_for() -> Iterator[str]:
    """Keys that stand in the code as whole strings; the card's are looked at where it is drawn."""
    sections = "|".join(section for section in sentences("en") if section != "card")
    key = re.compile(rf"({sections})\.[a-z_]+")
    for file in BOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and key.fullmatch(value) and value not in FAMILIES:
                yield value


def test_every_sentence_that_the_code_asks_for_exists() -> None:
    known = entries("en")
    missing = {key for key in asked_for() if key not in known}
    assert not missing
    for family, names in FAMILIES.items():
        assert {f"{family}{name}" for name in names} <= known.keys()


def test_every_sentence_is_asked_for() -> None:
    asked = set(asked_for())
    for family, names in FAMILIES.items():
        asked |= {f"{family}{name}" for name in names}
    unused = {key for key in entries("en") if not key.startswith("card.")} - asked
    assert not unused


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_shown_as_a_toast_fits_one(language: str) -> None:
    for key, text in entries(language).items():
        if key.startswith(("toast.", "turned.")):
            assert len(text.replace("{code}", "0" * 8)) <= TOAST_MAX, key


def test_the_plural_follows_the_count() -> None:
    assert say("es", "lookalike.several", count=1) == "Veo 1 cara:"
    assert say("es", "lookalike.several", count=2) == "Veo 2 caras:"


@pytest.mark.parametrize(
    ("code", "language"), [("es", "es"), ("ES-mx", "es"), ("de", "en"), ("", "es"), (None, "es")]
)
def test_language_of(code: str | None, language: str) -> None:
    assert language_of(code) == language
