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

from bot import card
from bot.canvas import (
    INK,
    MONOGRAMS,
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


def test_a_bar_is_painted_as_long_as_its_share_of_the_largest(astronaut: Image.Image) -> None:
    seen = analysis(face((match(probability=0.05), match("Ana", probability=0.032))))
    picture = opened(card.draw(encoded(astronaut), seen, language="en"))
    best, second = of(card.compose(seen, language="en"), Bar)
    tone, track = ImageColor.getrgb(TONES[Verdict.GOOD]), ImageColor.getrgb(TRACK)
    for bar, length in ((best, 1.0), (second, 0.64)):
        row = bar.spot.y + bar.spot.height // 2
        inside = bar.spot.x + round(bar.spot.width * (length - 0.02))
        assert picture.getpixel((inside, row)) == tone
        if length < 1:
            behind = bar.spot.x + round(bar.spot.width * (length + 0.02))
            assert picture.getpixel((behind, row)) == track


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
    ("en", Verdict.IS): "The same person?",
    ("en", Verdict.STRONG): "Amazing resemblance to",
    ("en", Verdict.GOOD): "Good resemblance to",
    ("en", Verdict.SOME): "A touch of",
    ("en", Verdict.FAINT): "The closest one",
    ("es", Verdict.IS): "¿La misma persona?",
    ("es", Verdict.STRONG): "Parecido asombroso con",
    ("es", Verdict.GOOD): "Buen parecido con",
    ("es", Verdict.SOME): "Un aire a",
    ("es", Verdict.FAINT): "Lo más cercano",
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
    layout = card.compose(seen, language=language)
    assert {bar.ink for bar in of(layout, Bar)} == {TONES[verdict]}
    assert len(set(TONES.values())) == len(Verdict)
    assert words(layout).count(say(language, f"card.word_{verdict}")) == 4


@pytest.mark.parametrize("verdict", [Verdict.IS, Verdict.STRONG, Verdict.GOOD])
def test_a_rare_likeness_is_told_in_figures(verdict: Verdict) -> None:
    seen = analysis(face((match(percentile=95.0, verdict=verdict),)))
    assert "Only 1 in 20 people looks this much" in words(card.compose(seen, language="en"))
    said = words(card.compose(seen, language="es"))
    assert "Solo 1 de cada 20 personas se parece tanto" in said


def test_a_likeness_that_two_of_five_have_is_told_without_figures() -> None:
    seen = analysis(face((match(percentile=60.0, verdict=Verdict.GOOD),)))
    assert "Most people don't look this much" in words(card.compose(seen, language="en"))
    assert " 1 in " not in words(card.compose(seen, language="en"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", [Verdict.SOME, Verdict.FAINT])
def test_what_impresses_nobody_is_told_without_figures(language: str, verdict: Verdict) -> None:
    seen = analysis(face((match(percentile=50.0, verdict=verdict, probability=0.5),)))
    layout = card.compose(seen, language=language)
    assert shares(layout) == ["50", "50"]
    assert not re.search(r"\d", words(layout).replace("50", ""))


@pytest.mark.parametrize("language", LANGUAGES)
def test_shares_are_printed_beside_bars_and_make_a_hundred_with_the_others(language: str) -> None:
    layout = card.compose(analysis(face()), language=language, people=PEOPLE)
    assert len(of(layout, Bar)) == 5
    shown = shares(layout)
    assert shown == ["40", "20", "11", "3", "< 1", "26"]
    assert sum(int(share) for share in shown if share.isdecimal()) == 100
    assert say(language, "card.others", count=PEOPLE - 5) in words(layout)
    assert str(PEOPLE) in words(layout)


def shares(layout: Layout) -> list[str]:
    """The percentages of a card in the order in which they stand there, without their signs."""
    found = (re.fullmatch(r"([<>]?\s?\d+)\s?%", text.text) for text in of(layout, Text))
    return [one[1].replace("\u00a0", " ") for one in found if one]


def test_bars_are_as_long_as_their_shares_of_the_largest() -> None:
    layout = card.compose(analysis(face()), language="en", people=PEOPLE)
    lengths = [bar.share for bar in of(layout, Bar)]
    # They have one track, or a small share could have the longer bar.
    assert len({(bar.spot.x, bar.spot.width) for bar in of(layout, Bar)}) == 1
    assert lengths == pytest.approx([each.probability / 0.402 for each in FIVE])


def test_bars_of_tiny_shares_are_not_all_empty() -> None:
    """Among so many that nobody has much, the nearest one's bar is full all the same."""
    small = [match(name, probability=0.004 - n / 1000) for n, name in enumerate("ABC")]
    layout = card.compose(analysis(face(tuple(small))), language="en", people=10_000)
    assert [bar.share for bar in of(layout, Bar)] == pytest.approx([1.0, 0.75, 0.5])
    assert shares(layout) == ["< 1", "< 1", "< 1", "> 99"]


def test_whoever_has_nearly_all_is_not_given_all() -> None:
    seen = analysis(face((match(probability=0.9991), match("Ana", probability=0.0005))))
    layout = card.compose(seen, language="en", people=PEOPLE)
    assert shares(layout) == ["> 99", "< 1", "< 1"]


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
    assert "other celebrities" not in words(pair)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("people", [None, PEOPLE])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_footnote_says_what_the_percentages_are(
    language: str, people: int | None, count: int
) -> None:
    said = words(card.compose(crowd(count), language=language, people=people))
    footnote = (
        say(language, "card.footnote_all")
        if people is None
        else say(language, "card.footnote", count=people)
    )
    assert footnote in said


def test_in_an_overview_the_largest_share_of_all_faces_fills_its_bar() -> None:
    faces = [face((match(probability=share),), x=512 * n) for n, share in enumerate((0.2, 0.5))]
    layout = card.compose(analysis(*faces, size=(1024, 512)), language="en", people=PEOPLE)
    first, second = of(layout, Bar)
    assert (first.share, second.share) == (0.4, 1.0)
    assert first.spot.width == second.spot.width
    assert shares(layout) == ["20", "50"]


def test_a_face_without_matches_is_told_so_without_a_bar() -> None:
    layout = card.compose(analysis(face(())), language="en", people=PEOPLE)
    assert "One of a kind" in words(layout)
    assert not of(layout, Bar)
    assert "%" not in words(layout)
    assert "percentages" not in words(layout)


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


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 9])
def test_an_overview_numbers_each_face_in_the_photo_and_below(count: int) -> None:
    layout = card.compose(crowd(count), language="en")
    photo = of(layout, Photograph)[0].spot
    shown = list(range(1, min(count, 6) + 1))
    badges = of(layout, Badge)
    assert [badge.number for badge in badges if badge.spot.y < photo.bottom] == shown
    assert [badge.number for badge in badges if badge.spot.y >= photo.bottom] == shown
    assert len(of(layout, Frame)) == len(of(layout, Portrait)) == len(shown)
    assert words(layout).count("Barrymore") == len(shown)


@pytest.mark.parametrize(("count", "said"), [(7, "And 1 more face in"), (9, "And 3 more faces in")])
def test_faces_that_do_not_fit_are_counted(count: int, said: str) -> None:
    assert said in words(card.compose(crowd(count), language="en"))


def test_numbers_are_painted_on_the_photo(astronaut: Image.Image) -> None:
    photo, seen = mosaic(astronaut, 3, 2)
    picture = opened(card.draw(photo, seen, language="en"))
    badges = of(card.compose(seen, language="en"), Badge)
    assert len(badges) == 12
    for badge in badges:
        left = (badge.spot.x + 8, badge.spot.y + badge.spot.height // 2)
        assert picture.getpixel(left) == ImageColor.getrgb(INK)


def test_numbers_of_neighbours_do_not_cover_each_other() -> None:
    close = analysis(*(face(x=n * 3.0) for n in range(6)), size=(2000, 1500))
    layout = card.compose(close, language="en")
    badges = of(layout, Badge)[:6]
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
        solid = [item.spot for item in (*texts, *bars, *of(layout, Likeness))]
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
