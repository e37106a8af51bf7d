"""Letters on a picture: which font, how wide, where lines break."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.drawing import lettering
from bot.drawing.lettering import Style
from bot.texts import LANGUAGES, sentences

STYLE = Style(40, 600)
UNDRAWABLE = "\U000f1234"  # private use: no text font has a glyph for it


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_letter_of_our_own_sentences_can_be_drawn(language: str) -> None:
    said = str(dict(sentences(language)["card"]))
    assert [letter for letter in said if not lettering.drawable(letter)] == []


@pytest.mark.parametrize(
    "name", ["Íñigo Núñez", "Łukasz Żal", "Ştefan", "Ångström", "Κώστας", "Юра"]
)
def test_names_of_europe_need_no_other_font(name: str) -> None:
    assert lettering.drawable(name.replace(" ", ""))


def test_what_no_font_knows_becomes_an_empty_square() -> None:
    assert not lettering.drawable(UNDRAWABLE)
    assert lettering.measure(UNDRAWABLE, STYLE) == lettering.measure("□", STYLE)


def test_heavier_is_wider_and_bigger_is_wider() -> None:
    regular = lettering.measure("Resemblance", Style(40, 400))
    assert lettering.measure("Resemblance", Style(40, 800)) > regular
    assert lettering.measure("Resemblance", Style(60, 400)) > 1.2 * regular


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Ana \n\t María ", "Ana María"),
        ("n\u0303andu\u0301", "ñandú"),
        ("\u202eevil\u2066", "evil"),
        ("a\x00b\ud800c", "abc"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", ""),
    ],
)
def test_a_name_is_cleaned(typed: str, kept: str) -> None:
    assert lettering.clean(typed) == kept


def test_an_endless_name_is_looked_at_no_further_than_needed() -> None:
    assert len(lettering.clean("ab " * 100_000)) <= 160


def test_what_fits_is_left_as_it_is() -> None:
    assert lettering.fit("Drew Barrymore", STYLE, width_px=900) == (("Drew Barrymore",), STYLE)


def test_letters_shrink_before_anything_is_cut() -> None:
    width = lettering.measure("Drew Barrymore", Style(34, 600))
    lines, style = lettering.fit("Drew Barrymore", STYLE, width_px=width, smallest_px=28)
    assert lines == ("Drew Barrymore",)
    assert 28 <= style.size_px <= 34


def test_what_cannot_fit_ends_in_an_ellipsis() -> None:
    lines, style = lettering.fit("Drew Blyth Barrymore", STYLE, width_px=200, smallest_px=36)
    assert style.size_px == 36
    assert len(lines) == 1
    assert lines[0].startswith("Drew")
    assert lines[0].endswith("…")


def test_a_letter_wider_than_its_place_gives_way_to_an_ellipsis() -> None:
    width = (lettering.measure("W", STYLE) + lettering.measure("…", STYLE)) / 2
    assert lettering.measure("…", STYLE) <= width < lettering.measure("W", STYLE)
    assert lettering.fit("W", STYLE, width_px=width) == (("…",), STYLE)


def test_lines_are_balanced() -> None:
    text = "Closer than ninety of a hundred strangers"
    width = lettering.measure(text, STYLE) - 10  # one word too long for one line
    lines, _ = lettering.fit(text, STYLE, width_px=width, lines=2)
    first, second = (lettering.measure(line, STYLE) for line in lines)
    assert " ".join(lines) == text
    assert abs(first - second) < 0.35 * width


def test_a_no_break_space_does_not_break() -> None:
    lines, _ = lettering.fit("mmmm 97\u00a0%", STYLE, width_px=170, lines=2)
    assert lines == ("mmmm", "97\u00a0%")


@settings(deadline=None, max_examples=150)
@given(
    st.text(max_size=80).map(lettering.clean),
    st.integers(80, 700),
    st.integers(1, 3),
    st.sampled_from([None, 24]),
)
def test_no_line_is_wider_than_allowed(
    text: str, width: int, most: int, smallest: int | None
) -> None:
    lines, style = lettering.fit(text, STYLE, width_px=width, lines=most, smallest_px=smallest)
    assert 1 <= len(lines) <= most
    assert all(lettering.measure(line, style) <= width for line in lines)
    shown = "".join(lines).replace(" ", "")
    if "…" not in shown:
        assert shown == text.replace(" ", "")
