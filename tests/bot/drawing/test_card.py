"""The card as its reader sees it: what it shows, in which words, and that nothing spills.

The astronaut's landmarks are those that MTCNN finds.
"""

import dataclasses
import io
import itertools
import re
from typing import TypeVar

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from bot.drawing import card, figures
from bot.drawing.canvas import (
    INK,
    MONOGRAMS,
    MUTED,
    TONES,
    TRACK,
    Badge,
    Bar,
    Frame,
    Item,
    Layout,
    Likeness,
    Panel,
    Photograph,
    Portrait,
    Spot,
    Text,
    initials,
)
from bot.texts import LANGUAGES, say
from engine.errors import ImageError
from engine.types import Analysis, Face, Match, Pose, Quality, Verdict

BOX = (181.1, 62.2, 267.7, 172.1)
LANDMARKS = ((205.0, 101.7), (246.8, 103.7), (224.7, 129.0), (201.7, 139.2), (245.3, 141.9))
Kind = TypeVar("Kind", bound=Item)
QUALITY, POSE = Quality(86.6, 0.2, 0.5), Pose(0.0, 0.56)


def match(
    name: str = "Kate Winslet",
    percentile: float = 81.2,
    verdict: Verdict = Verdict.GOOD,
    thumbnail: bytes | None = None,
    probability: float = 0.3,
) -> Match:
    return Match(name, probability, 0.4, percentile, verdict, thumbnail)


FIVE = (
    match("Drew Barrymore", 97.3, Verdict.STRONG, probability=0.402),
    match("Begoña Núñez Íñiguez", 81.2, Verdict.GOOD, probability=0.201),
    match("Kate Winslet", 64.0, Verdict.GOOD, probability=0.106),
    match("Gwyneth Paltrow", 33.0, Verdict.SOME, probability=0.031),
    match("Robert Downey Jr", 0.4, Verdict.FAINT, probability=0.004),
)
PEOPLE = 570


def face(
    matches: tuple[Match, ...] = FIVE, *, x: float = 0.0, y: float = 0.0, scale: float = 1.0
) -> Face:
    x1, y1, x2, y2 = (edge * scale for edge in BOX)
    a, b, c, d, e = ((u * scale + x, v * scale + y) for u, v in LANDMARKS)
    return Face((x1 + x, y1 + y, x2 + x, y2 + y), (a, b, c, d, e), 0.999, QUALITY, POSE, matches)


def analysis(*faces: Face, size: tuple[int, int] = (512, 512)) -> Analysis:
    return Analysis(faces, *size, "celebrities@00000000")


def encoded(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut())


def mosaic(tile: Image.Image, columns: int, rows: int) -> tuple[bytes, Analysis]:
    """The same person many times over, and where each one's face is."""
    size = (tile.width * columns, tile.height * rows)
    photo = Image.new("RGB", size)
    faces = []
    for row, column in itertools.product(range(rows), range(columns)):
        corner = (column * tile.width, row * tile.height)
        photo.paste(tile, corner)
        faces.append(face(x=corner[0], y=corner[1]))
    return encoded(photo), analysis(*faces, size=size)


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    assert picture.format == "PNG"
    picture.load()
    return picture


def of(layout: Layout, kind: type[Kind]) -> list[Kind]:
    return [item for item in layout.items if isinstance(item, kind)]


def words(layout: Layout) -> str:
    return " ".join(text.text for text in of(layout, Text)).replace("\u00a0", " ")


def crowd(count: int, matches: tuple[Match, ...] = FIVE) -> Analysis:
    faces = [face(matches, x=512 * (n % 4), y=512 * (n // 4)) for n in range(count)]
    return analysis(*faces, size=(2048, 512 * (1 + (count - 1) // 4)))


# ------------------------------------------------------------------------------- the picture


def test_a_card_is_a_png_that_telegram_shows_whole(astronaut: Image.Image) -> None:
    png = card.draw(encoded(astronaut), analysis(face()), language="es")
    picture = opened(png)
    assert picture.mode == "RGB"
    assert picture.width == 1080
    assert 0.5 < picture.height / picture.width < 1.6
    assert len(png) < 1_500_000


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
def test_telegram_makes_a_faces_card_hardly_smaller(language: str, verdict: Verdict) -> None:
    """Its photos have 1280 px on their longer side; letters are set for a width of 1000."""
    best = match("Sebastián Marroquín de la Santísima Trinidad", 99.99, verdict)
    layout = card.compose(analysis(face((best, *FIVE[1:]))), language=language, people=PEOPLE)
    assert layout.width * 1280 / layout.height >= 1000


def test_an_overview_of_six_stays_a_small_file(astronaut: Image.Image) -> None:
    photo, seen = mosaic(astronaut, 3, 2)
    png = card.draw(photo, seen, language="es")
    assert opened(png).height / 1080 < 1.6
    assert len(png) < 1_500_000


def test_the_same_answer_is_the_same_bytes(astronaut: Image.Image) -> None:
    photo = encoded(astronaut)
    first = card.draw(photo, analysis(face()), language="en")
    assert card.draw(photo, analysis(face()), language="en") == first
    assert card.draw(photo, analysis(face()), language="es") != first


def test_the_portrait_shows_the_face_upright_and_centred(astronaut: Image.Image) -> None:
    """The same face, turned by 90 degrees in its photo, gives the same portrait."""
    upright = card.draw(encoded(astronaut), analysis(face()), language="en")
    turned = face()
    turned = dataclasses.replace(
        turned,
        # (x, y) goes to (y, 512 - x) in a picture turned left.
        landmarks=tuple((y, 512 - x) for x, y in turned.landmarks),  # type: ignore[arg-type]
    )
    left = encoded(astronaut.transpose(Image.Transpose.ROTATE_90))
    again = card.draw(left, analysis(turned), language="en")
    assert portrait_difference(upright, again, analysis(face())) < 4


def test_a_huge_photo_gives_the_same_portrait_as_a_small_one(astronaut: Image.Image) -> None:
    small = card.draw(encoded(astronaut), analysis(face()), language="en")
    huge = encoded(astronaut.resize((5000, 5000), Image.Resampling.BICUBIC))
    seen = analysis(face(scale=5000 / 512), size=(5000, 5000))
    drawn = card.draw(huge, seen, language="en")
    assert portrait_difference(small, drawn, analysis(face())) < 4


def portrait_difference(one: bytes, other: bytes, seen: Analysis) -> float:
    """Mean difference of two cards' portraits, in grey levels, clear of the likeness on it."""
    layout = card.compose(seen, language="en")
    spot = of(layout, Portrait)[0].spot
    box = (spot.x + 70, spot.y + 70, spot.x + 300, spot.y + 280)
    a, b = (np.asarray(opened(png).crop(box), np.float64) for png in (one, other))
    assert a.std() > 20
    return float(np.abs(a - b).mean())


def test_past_the_photos_edge_there_is_no_black() -> None:
    """A white photo stays white where the portrait reaches past its corner."""
    photo = encoded(Image.new("RGB", (120, 150), "white"))
    seen = analysis(face((), x=-190, y=-80), size=(120, 150))
    picture = opened(card.draw(photo, seen, language="en"))
    spot = of(card.compose(seen, language="en"), Portrait)[0].spot
    inner = picture.crop((spot.x + 60, spot.y + 60, spot.right - 60, spot.bottom - 60))
    assert np.asarray(inner).min() > 230


@pytest.mark.parametrize("percent", [5, 32, 64, 99])
def test_a_bar_is_painted_as_long_as_its_number_says(astronaut: Image.Image, percent: int) -> None:
    painted, bar = painted_bar(astronaut, percent / 100)
    assert painted == pytest.approx(bar.spot.width * percent / 100, abs=1)


@pytest.mark.parametrize("probability", [0.0001, 0.01])
def test_the_least_share_is_a_dot_that_is_seen(astronaut: Image.Image, probability: float) -> None:
    painted, bar = painted_bar(astronaut, probability)
    assert 5 <= painted <= bar.spot.width * 0.03


def painted_bar(photo: Image.Image, probability: float) -> tuple[int, Bar]:
    """How many pixels of the only bar's middle row are nearer its ink than its track, and it."""
    seen = analysis(face((match(probability=probability),)))
    picture = opened(card.draw(encoded(photo), seen, language="en"))
    (bar,) = of(card.compose(seen, language="en"), Bar)
    row = bar.spot.y + bar.spot.height // 2
    pixels = np.asarray(picture, np.float64)[row, bar.spot.x : bar.spot.right]
    tone, track = (
        np.abs(pixels - ImageColor.getrgb(colour)).sum(1) for colour in (TONES[Verdict.GOOD], TRACK)
    )
    inked = (tone < track).tolist()
    assert inked == sorted(inked, reverse=True)  # in one piece, from the left
    return sum(inked), bar


def test_a_reference_picture_is_shown_where_the_bundle_has_one(astronaut: Image.Image) -> None:
    red = encoded(Image.new("RGB", (64, 80), (200, 20, 20)))
    seen = analysis(face((match(thumbnail=red),)))
    assert np.abs(likeness_ground(astronaut, seen) - (200, 20, 20)).max() < 6


@pytest.mark.parametrize("thumbnail", [None, b"", b"not a picture"])
def test_a_monogram_stands_where_there_is_no_picture(
    astronaut: Image.Image, thumbnail: bytes | None
) -> None:
    seen = analysis(face((match(thumbnail=thumbnail),)))
    ground = likeness_ground(astronaut, seen)
    assert tuple(ground) in {ImageColor.getrgb(colour) for colour, _ in MONOGRAMS}


def likeness_ground(photo: Image.Image, seen: Analysis) -> np.ndarray:
    picture = opened(card.draw(encoded(photo), seen, language="en"))
    spot = of(card.compose(seen, language="en"), Likeness)[0].spot
    pixel = picture.getpixel((spot.x + spot.width // 2, spot.y + spot.height // 8))
    return np.array(pixel)


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("Drew Barrymore", "DB"),
        ("Robert Downey Jr", "RJ"),
        ("ñandú", "Ñ"),
        ("  (Dr.)  Íñigo  2 ", "DÍ"),
        ("ßeta", "S"),
        ("123 -- !", ""),
        ("", ""),
    ],
)
def test_initials(name: str, letters: str) -> None:
    assert initials(name) == letters


def test_a_broken_photo_is_the_callers_fault_to_tell() -> None:
    with pytest.raises(ImageError):
        card.draw(b"not a photo", analysis(face()), language="en")


def test_there_is_no_card_without_a_face() -> None:
    with pytest.raises(ValueError, match="needs a face"):
        card.compose(analysis(), language="en")


@pytest.mark.parametrize("index", [-1, 2])
def test_a_face_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        card.compose(crowd(2), language="en", face=index)


# --------------------------------------------------------------------------------- the words

SAID = {
    ("en", Verdict.IS): "Almost the same face as",
    ("en", Verdict.STRONG): "Amazing resemblance to",
    ("en", Verdict.GOOD): "Good resemblance to",
    ("en", Verdict.SOME): "A touch of",
    ("en", Verdict.FAINT): "From afar, the nearest is",
    ("es", Verdict.IS): "Casi la misma cara que",
    ("es", Verdict.STRONG): "Parecido asombroso con",
    ("es", Verdict.GOOD): "Buen parecido con",
    ("es", Verdict.SOME): "Un aire a",
    ("es", Verdict.FAINT): "A lo lejos, lo más cercano:",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
def test_words_follow_the_verdict(language: str, verdict: Verdict) -> None:
    said = words(card.compose(analysis(face((match(verdict=verdict),))), language=language))
    assert f"{SAID[language, verdict]} Kate Winslet" in said
    others = [SAID[language, other] for other in Verdict if other is not verdict]
    assert not any(other in said for other in others)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_has_a_colour_and_a_word_of_its_own(language: str, verdict: Verdict) -> None:
    seen = crowd(4, (match(verdict=verdict),))
    alone = card.compose(seen, language=language, face=0)
    assert {bar.ink for bar in of(alone, Bar)} == {TONES[verdict]}
    assert len(set(TONES.values())) == len(Verdict)
    word = say(language, f"card.word_{verdict}")
    overview = of(card.compose(seen, language=language), Text)
    assert [text.ink for text in overview if text.text == word] == [TONES[verdict]] * 4


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("percentile", [61.0, 81.2, 97.3])
def test_how_strong_a_likeness_is_stands_beside_the_face_without_a_percentage(
    language: str, verdict: Verdict, percentile: float
) -> None:
    best = match(percentile=percentile, verdict=verdict)
    layout = card.compose(analysis(face((best, *FIVE[1:]))), language=language, people=PEOPLE)
    portrait, panel = of(layout, Portrait)[0].spot, of(layout, Panel)[0].spot
    beside = [text.text for text in of(layout, Text) if text.spot.y < panel.y]
    said = figures.strength(best, language).replace("\u00a0", " ")
    assert " ".join(beside).replace("\u00a0", " ").endswith(f"Kate Winslet {said}")
    assert not any("%" in text for text in beside)
    assert all(bar.spot.y > portrait.bottom for bar in of(layout, Bar))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", [Verdict.SOME, Verdict.FAINT])
def test_what_impresses_nobody_is_told_without_figures(language: str, verdict: Verdict) -> None:
    seen = analysis(face((match(percentile=50.0, verdict=verdict, probability=0.5),)))
    layout = card.compose(seen, language=language)
    assert shares(layout) == ["50", "50"]
    assert not re.search(r"\d", words(layout).replace("50", ""))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_likeness_is_shared_among_the_named_and_all_others(language: str) -> None:
    layout = card.compose(analysis(face()), language=language, people=PEOPLE)
    panel = of(layout, Panel)[0].spot
    inside = " ".join(text.text for text in of(layout, Text) if within(text.spot, panel))
    assert inside.startswith(say(language, "figures.shared", count=PEOPLE))
    assert str(PEOPLE) in inside
    # The first has a row like all others; who has less than 1 % has none.
    places = [inside.index(one.name) for one in FIVE[:4]]
    assert places == sorted(places)
    assert FIVE[4].name not in words(layout)
    rest = say(language, "figures.rest", count=PEOPLE - len(places))
    assert inside.index(rest) > places[-1]
    assert shares(layout) == ["40", "20", "11", "3", "26"]
    assert sum(map(int, shares(layout))) == 100
    unknown = words(card.compose(analysis(face()), language=language))
    assert say(language, "figures.shared_all") in unknown


def shares(layout: Layout) -> list[str]:
    """The percentages of a card in the order in which they stand there, without their signs."""
    found = (re.fullmatch(r"(\S+)\s?%", text.text) for text in of(layout, Text))
    return [one[1] for one in found if one]


def test_bars_are_as_long_as_their_numbers_on_one_track() -> None:
    layout = card.compose(analysis(face()), language="en", people=PEOPLE)
    bars = of(layout, Bar)
    # They have one track, or a small share could have the longer bar.
    assert len({(bar.spot.x, bar.spot.width) for bar in bars}) == 1
    assert [bar.share for bar in bars] == [0.40, 0.20, 0.11, 0.03]
    # All others have none.
    assert [f"{round(100 * bar.share)}" for bar in bars] == shares(layout)[:-1]


def test_all_others_are_told_more_quietly_than_the_named() -> None:
    layout = card.compose(analysis(face()), language="en", people=PEOPLE)
    told = {text.text: text.ink for text in of(layout, Text)}
    assert told["40%"] == told["3%"] == told["Kate Winslet"] == INK
    assert told["26%"] == told[f"The other {PEOPLE - 4} together"] == MUTED


def test_where_nobody_has_much_the_nearest_is_shown_all_the_same() -> None:
    small = [match(name, probability=0.004 - n / 1000) for n, name in enumerate("ABC")]
    layout = card.compose(analysis(face(tuple(small))), language="en", people=10_000)
    assert shares(layout) == ["1", "99"]
    assert [bar.share for bar in of(layout, Bar)] == [0.01]


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_has_nearly_all_is_not_given_all(language: str) -> None:
    seen = analysis(face((match(probability=0.9991), match("Ana", probability=0.0005))))
    layout = card.compose(seen, language=language, people=PEOPLE)
    assert shares(layout) == ["99", "1"]
    seen = analysis(face((match(probability=0.9998), match("Ana", probability=0.0001))))
    layout = card.compose(seen, language=language, people=PEOPLE)
    assert shares(layout) == ["100"]
    # Whom nothing is left for has no row.
    assert say(language, "figures.rest", count=PEOPLE - 1) not in words(layout)


def test_where_nobody_else_is_known_there_are_no_others() -> None:
    alone = card.compose(analysis(face((match(probability=1.0),))), language="en", people=1)
    assert shares(alone) == ["100"]
    assert "other" not in words(alone)
    thirds = tuple(match(name, probability=1 / 3) for name in ("Ana", "Ben", "Zoe"))
    assert shares(card.compose(analysis(face(thirds)), language="en", people=3)) == [
        "34",
        "33",
        "33",
    ]
    two = (match(probability=0.7), match("Ana", probability=0.3))
    pair = card.compose(analysis(face(two)), language="en", people=2)
    assert shares(pair) == ["70", "30"]
    assert "others" not in words(pair)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("people", [None, 1, PEOPLE])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_footnote_says_that_it_is_a_game(language: str, people: int | None, count: int) -> None:
    said = words(card.compose(crowd(count), language=language, people=people))
    assert say(language, "card.footnote") in said
    assert not re.search("[<>]", said)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_an_overview_has_no_percentages(count: int) -> None:
    layout = card.compose(crowd(count), language="en", people=PEOPLE)
    assert not of(layout, Bar)
    assert "%" not in words(layout)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
def test_an_overview_of_few_tells_how_strong_each_likeness_is(
    language: str, verdict: Verdict
) -> None:
    best = match(verdict=verdict)
    strength = figures.strength(best, language).replace("\u00a0", " ")
    told = words(card.compose(crowd(3, (best,)), language=language))
    assert told.count(strength) == 3
    assert strength not in words(card.compose(crowd(4, (best,)), language=language))


@pytest.mark.parametrize("count", [3, 6])
def test_neighbours_in_an_overview_are_equally_high_whatever_their_names(count: int) -> None:
    long = match("María de los Ángeles Fernández-Villaverde de la Santísima Trinidad")
    faces = [face((long if n == 1 else match(),), x=512 * n) for n in range(count)]
    layout = card.compose(analysis(*faces, size=(512 * count, 512)), language="es")
    panels = [panel.spot for panel in of(layout, Panel)]
    assert len(panels) == count
    for one, other in itertools.combinations(panels, 2):
        assert not one.overlaps(other)
        assert one.y != other.y or one.height == other.height
    assert "Santísima" in words(layout) or count > 3


def test_a_face_without_matches_is_told_so_without_a_bar() -> None:
    layout = card.compose(analysis(face(())), language="en", people=PEOPLE)
    assert "One of a kind" in words(layout)
    assert not of(layout, Bar)
    assert "%" not in words(layout)
    assert not of(layout, Panel)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_our_own_sentences_are_never_cut(language: str, verdict: Verdict, count: int) -> None:
    for percentile, people in itertools.product((61.0, 99.99), (None, 1, 100_000)):
        named = tuple(match(name, percentile, verdict, probability=0.2) for name in "ABCDE")
        seen = crowd(count, named)
        for index in (None, 0):
            layout = card.compose(seen, language=language, face=index, people=people)
            assert "…" not in words(layout)
    nobody = crowd(count, ())
    assert "…" not in words(card.compose(nobody, language=language))


# -------------------------------------------------------------------------------- many faces


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 9, 12, 32])
def test_an_overview_numbers_each_face_in_the_photo_and_below(count: int) -> None:
    layout = card.compose(crowd(count), language="en")
    photo = of(layout, Photograph)[0].spot
    shown = list(range(1, count + 1))
    badges = of(layout, Badge)
    assert [badge.number for badge in badges if badge.spot.y < photo.bottom] == shown
    assert [badge.number for badge in badges if badge.spot.y >= photo.bottom] == shown
    assert len(of(layout, Frame)) == len(of(layout, Portrait)) == len(shown)
    assert words(layout).count("Barrymore") == len(shown)


def test_numbers_are_painted_on_the_photo(astronaut: Image.Image) -> None:
    photo, seen = mosaic(astronaut, 3, 2)
    picture = opened(card.draw(photo, seen, language="en"))
    badges = of(card.compose(seen, language="en"), Badge)
    assert len(badges) == 12
    for badge in badges:
        left = (badge.spot.x + 8, badge.spot.y + badge.spot.height // 2)
        assert picture.getpixel(left) == ImageColor.getrgb(INK)


def test_numbers_of_neighbours_do_not_cover_each_other() -> None:
    close = analysis(*(face(x=n * 3.0) for n in range(12)), size=(2000, 1500))
    layout = card.compose(close, language="en")
    badges = of(layout, Badge)[:12]
    assert not any(a.spot.overlaps(b.spot) for a, b in itertools.combinations(badges, 2))


def test_one_face_of_several_keeps_its_number_on_its_own_card() -> None:
    layout = card.compose(crowd(3), language="en", face=2)
    assert [badge.number for badge in of(layout, Badge)] == [3]
    assert len(of(layout, Portrait)) == 1


def test_the_only_face_has_no_number() -> None:
    assert not of(card.compose(analysis(face()), language="en"), Badge)
    only = card.compose(analysis(face()), language="en", face=0)
    assert only == card.compose(analysis(face()), language="en")


@pytest.mark.parametrize("size", [(6000, 200), (200, 6000), (1000, 1), (1, 1000)])
def test_an_extreme_photo_shows_the_part_with_the_faces(size: tuple[int, int]) -> None:
    width, height = size
    at = [(width * 0.8, height * 0.8), (width * 0.85, height * 0.85)]
    faces = [face(x=x - 220, y=y - 120) for x, y in at]
    layout = card.compose(analysis(*faces, size=size), language="en")
    photograph = of(layout, Photograph)[0]
    x1, y1, x2, y2 = photograph.view
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in at)
    assert within(photograph.window, photograph.spot)
    assert all(within(frame.spot, photograph.window) for frame in of(layout, Frame))
    card.draw(encoded(Image.new("RGB", size)), analysis(*faces, size=size), language="en")


# ----------------------------------------------------------------------------- nothing spills

names = st.one_of(
    st.text(max_size=60),
    st.text("WM ñ", max_size=300),
    st.sampled_from(
        [
            "Wolfeschlegelsteinhausenbergerdorff " * 4,
            "李连杰",
            "محمد صلاح",
            "ประยุทธ์ จันทร์โอชา",
            "נטלי פורטמן Natalie",
            "\u202eevil\n\x00name\ud800",
            "﷽﷽﷽",
            "e" + "\u0301" * 200,
        ]
    ),
)
matches_drawn = st.lists(
    st.builds(
        match,
        names,
        st.floats(0, 100),
        st.sampled_from(Verdict),
        probability=st.floats(0, 1),
    ),
    max_size=5,
).map(tuple)
people_drawn = st.none() | st.integers(0, 10**7)


def within(inner: Spot, outer: Spot) -> bool:
    return (
        outer.x <= inner.x
        and outer.y <= inner.y
        and inner.right <= outer.right
        and inner.bottom <= outer.bottom
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(matches_drawn, min_size=1, max_size=7),
    people_drawn,
    st.sampled_from(sorted(LANGUAGES)),
)
def test_no_name_leaves_its_place(
    named: list[tuple[Match, ...]], people: int | None, language: str
) -> None:
    faces = [face(matches, x=300.0 * n) for n, matches in enumerate(named)]
    seen = analysis(*faces, size=(2200, 700))
    for index in (None, 0):
        layout = card.compose(seen, language=language, face=index, people=people)
        page = Spot(0, 0, layout.width, layout.height)
        texts, bars = of(layout, Text), of(layout, Bar)
        assert all(within(item.spot, page) for item in layout.items)
        assert all(text.spot.right <= page.right - card.MARGIN for text in texts)
        solid = [text.spot for text in texts] + [bar.spot for bar in bars]
        solid += [likeness.spot for likeness in of(layout, Likeness)]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(solid, 2))
        for panel in of(layout, Panel):
            touching = [spot for spot in solid if spot.overlaps(panel.spot)]
            assert all(within(spot, panel.spot) for spot in touching)


coordinates = st.integers(-40_000, 100_000).map(lambda n: n / 100)
points = st.tuples(coordinates, coordinates)
faces_drawn = st.builds(
    lambda a, b, marks, matches: Face(
        (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])),
        marks,
        0.9,
        QUALITY,
        POSE,
        matches,
    ),
    points,
    points,
    st.one_of(st.tuples(points, points, points, points, points), points.map(lambda p: (p,) * 5)),
    matches_drawn,
)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(faces_drawn, min_size=1, max_size=3),
    st.tuples(st.integers(1, 600), st.integers(1, 600)),
    st.sampled_from(sorted(LANGUAGES)),
)
def test_whatever_was_seen_there_is_a_picture(
    faces: list[Face], size: tuple[int, int], language: str
) -> None:
    photo = encoded(Image.new("RGB", size, "grey"))
    png = card.draw(photo, analysis(*faces, size=size), language=language)
    assert opened(png).width == 1080
