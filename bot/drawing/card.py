"""Draws the answer picture: a photo and what the engine saw in it become a PNG to forward.

Two steps. `compose` decides what stands where, as values that a test can measure; `draw` decodes
the photo and has `bot.drawing.canvas` paint them. The same photo and analysis give the same bytes.

Words follow the verdict that the engine gave; beside a face they tell whom it resembles and how
strongly. Below, bars and percentages divide the likeness among everybody whom the engine knows: a
bar is as long as its number says, and the numbers of a card make a hundred.

It does not know where the photo came from, who will read the answer, or how a face was compared.
It does not judge whether a photo deserves a card (faces too small, too many); whoever calls has
refused already. Nothing is kept: no photo, no face.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from bot.drawing import canvas, figures, lettering
from bot.drawing.canvas import (
    FRAME_STROKE,
    INK,
    MUTED,
    TONES,
    Badge,
    Bar,
    Frame,
    Item,
    Layout,
    Likeness,
    Mark,
    Panel,
    Photograph,
    Portrait,
    Rule,
    Spot,
    Text,
)
from bot.drawing.lettering import Style
from bot.texts import say
from engine.media import image
from engine.types import Analysis, Face, Match, Verdict

MOST_MATCHES: Final = 5
"""Matches that a face's card shows, as long as each has 1 % of the likeness."""

# Layout, in pixels. A phone shows the card at about a third of this width, so 28 px of letters
# are 10 there: nothing is set smaller, and nothing shrinks below 26.
WIDTH: Final = 1080
MARGIN: Final = 56
INNER: Final = WIDTH - 2 * MARGIN
PORTRAIT: Final = 448  # side of the face on its own card
PORTRAIT_RADIUS: Final = 64
PHOTOGRAPH_RADIUS: Final = 48
LIKENESS: Final = 188  # diameter of the best match's picture, which overlaps the portrait
PANEL_HEIGHTS: Final = (420, 660)  # of an overview's photo, least and most
BADGE: Final = 56
_BADGE_STEPS: Final = 6  # how far from its face a badge looks for a free place
PANEL_PADDING: Final = 32
ROW: Final = 88  # height of a share's row
ROW_LIKENESS: Final = 66
ROW_REST: Final = 74
BAR_HEIGHT: Final = 16
SHARE_GAP: Final = 20  # between a bar and its percentage
CELL_PADDING: Final = 24  # of an overview's panels

# Letters.
NAME: Final = Style(68, 700)
NAME_AFAR: Final = Style(52, 700)
NAME_SMALLEST: Final = 44
EYEBROW: Final = Style(36, 600)
WORDS: Final = Style(36, 400)
HEADING: Final = Style(36, 600)
ROW_NAME: Final = Style(36, 600)
ROW_NAME_SMALLEST: Final = 30
ROW_NAME_LONG: Final = Style(30, 600)
ROW_SHARE: Final = Style(36, 600)
ROW_REST_WORDS: Final = Style(32, 400)
CELL_NAME: Final = Style(38, 600)
CELL_NAME_NARROW: Final = Style(34, 600)
CELL_VERDICT: Final = Style(30, 600)
CELL_WORDS: Final = Style(28, 400)
NOTE: Final = Style(28, 400)
WORDMARK: Final = Style(28, 600)


def draw(
    picture: bytes,
    analysis: Analysis,
    *,
    language: str,
    face: int | None = None,
    people: int | None = None,
) -> bytes:
    """Draw the answer to a photo.

    Args:
        picture: the photo as the engine gave it back, see `Analysis.picture`.
        analysis: what the engine saw in it; at least one face.
        language: a key of `bot.texts.LANGUAGES`.
        face: index into `analysis.faces` for the card of that face alone; None for the card of
            the whole photo, which is the only face's card or an overview of all, in their order.
        people: how many people the bundle that answered knows; None where that is not known.
            An overview does not tell.

    Returns:
        A PNG, 1080 px wide.

    Raises:
        ImageError: the picture cannot be decoded.
        ValueError: the analysis has no face.
        IndexError: there is no such face.
    """
    layout = compose(analysis, language=language, face=face, people=people)
    photo = image.Photo(image.decode(picture), analysis.width_px, analysis.height_px)
    return canvas.png(canvas.paint(layout, photo))


def compose(
    analysis: Analysis, *, language: str, face: int | None = None, people: int | None = None
) -> Layout:
    """Decide what stands where on a card; same arguments and errors as `draw`."""
    faces = analysis.faces
    if not faces:
        raise ValueError("a card needs a face: answer a photo without one in words")
    if face is None and len(faces) > 1:
        return _overview(analysis, language)
    index = face or 0
    if not 0 <= index < len(faces):
        raise IndexError(f"there is no face {index} among {len(faces)}")
    return _face_card(faces[index], index + 1 if len(faces) > 1 else None, people, language)


# ---------------------------------------------------------------------------------- layout: a face


def _face_card(face: Face, number: int | None, people: int | None, language: str) -> Layout:
    chip = Spot(MARGIN, MARGIN, PORTRAIT, PORTRAIT)
    items: list[Item] = [Portrait(chip, face, PORTRAIT_RADIUS, lifted=True)]
    if number is not None:
        items.append(Badge(Spot(chip.x + 20, chip.y + 20, BADGE + 8, BADGE + 8), number))
    matches = face.matches[:MOST_MATCHES]
    if not matches:
        left = chip.right + 56
        items += _beside(chip, _nobody(language, left, WIDTH - MARGIN - left))
        return _finished(items, max(chip.bottom, _bottom(items)), [])
    likeness = Spot(chip.right - 132, chip.bottom - 164, LIKENESS, LIKENESS)
    items.append(Likeness(likeness, matches[0], ring=12))
    left = likeness.right + 32
    items += _beside(chip, _story(matches[0], language, left))
    items += _shares(matches, people, language, left, _bottom(items) + 36)
    return _finished(items, _bottom(items), [say(language, "card.footnote")])


def _beside(chip: Spot, story: list[Item]) -> list[Item]:
    """A story that begins at y = 0, level with a portrait's middle, but not above its top."""
    return _moved(story, chip.y + max(0, (chip.height - _bottom(story)) // 2))


def _nobody(language: str, x: int, width: int) -> list[Item]:
    """What is said where nobody is known, from y = 0 down."""
    items = _paragraph(say(language, "card.nobody"), EYEBROW, MUTED, x, 0, width, 2)
    name = say(language, "card.nobody_name")
    return [*items, *_paragraph(name, NAME, INK, x, _bottom(items) + 12, width, 3, 44)]


def _story(best: Match, language: str, x: int) -> list[Item]:
    """What is said of the best match, from y = 0 down."""
    tone, width = TONES[best.verdict], WIDTH - MARGIN - x
    items = _paragraph(say(language, f"card.{best.verdict}"), EYEBROW, tone, x, 0, width, 2, 30)
    name = lettering.clean(best.name)
    style = NAME_AFAR if best.verdict is Verdict.FAINT else NAME
    items += _paragraph(name, style, INK, x, _bottom(items) + 8, width, 3, NAME_SMALLEST)
    strength = figures.strength(best, language)
    return [*items, *_paragraph(strength, WORDS, INK, x, _bottom(items) + 16, width, 4, 30)]


def _shares(
    matches: tuple[Match, ...], people: int | None, language: str, bars_x: int, y: int
) -> list[Item]:
    """How the likeness divides, on a white panel: the matches that have a part, then all others.

    Args:
        matches: of one face, best first.
        people: how many people the bundle knows; None where that is not known.
        language: a key of `bot.texts.LANGUAGES`.
        bars_x: where all bars begin.
        y: top of the panel.
    """
    percents, rest = figures.percents(matches, people)
    rows = [(match, part) for match, part in zip(matches, percents, strict=True) if part >= 1]
    spelled = {part: figures.spell(part, language) for _, part in rows}
    widths = {part: round(lettering.measure(words, ROW_SHARE)) for part, words in spelled.items()}
    left, right = MARGIN + PANEL_PADDING, WIDTH - MARGIN - PANEL_PADDING
    # One track for all, so that bars compare.
    track = Spot(bars_x, 0, right - max(widths.values()) - SHARE_GAP - bars_x, BAR_HEIGHT)
    title = figures.shared(people, language)
    items = _paragraph(title, HEADING, INK, left, y + 28, right - left, 2, 30)
    name_x = left + ROW_LIKENESS + 24
    top = _bottom(items) + 10
    for index, (match, part) in enumerate(rows):
        if index:
            items.append(Rule(Spot(name_x, top - 1, right - name_x, 2)))
        disc = Spot(left, top + (ROW - ROW_LIKENESS) // 2, ROW_LIKENESS, ROW_LIKENESS)
        items.append(Likeness(disc, match))
        items += _amid(_row_name(match.name, name_x, bars_x - 28 - name_x), top, ROW)
        bar = replace(track, y=top + (ROW - BAR_HEIGHT) // 2)
        items.append(Bar(bar, part / 100, TONES[match.verdict]))
        share = _column([spelled[part]], ROW_SHARE, INK, right - widths[part], 0)
        items += _amid(share, top, ROW)
        top += ROW
    if rest >= 1:
        items.append(Rule(Spot(name_x, top - 1, right - name_x, 2)))
        # Without a bar: all others together are often more than the best match, which beats each.
        words = figures.spell(rest, language)
        x = right - round(lettering.measure(words, ROW_REST_WORDS))
        others = figures.rest(people, len(rows), language)
        called = _column([others], ROW_REST_WORDS, MUTED, name_x, 0)
        share = _column([words], ROW_REST_WORDS, MUTED, x, 0)
        items += _amid([*called, *share], top, ROW_REST)
        top += ROW_REST
    return [Panel(Spot(MARGIN, y, INNER, top + 8 - y), 40), *items]


def _row_name(name: str, x: int, room: int) -> list[Item]:
    """A name of the list on one line, or where it would be cut there on two."""
    name = lettering.clean(name)
    line = _paragraph(name, ROW_NAME, INK, x, 0, room, 1, ROW_NAME_SMALLEST)
    if [item.text for item in line if isinstance(item, Text)] == [name]:
        return line
    return _paragraph(name, ROW_NAME_LONG, INK, x, 0, room, 2, ROW_NAME_SMALLEST)


def _amid(items: list[Item], top: int, height: int) -> list[Item]:
    """What begins at y = 0, in the middle of a row."""
    return _moved(items, top + (height - _bottom(items)) // 2)


# -------------------------------------------------------------------------------- layout: overview


def _overview(analysis: Analysis, language: str) -> Layout:
    faces = analysis.faces
    photograph = _photograph(analysis, faces)
    items: list[Item] = [photograph]
    frames = [_frame(face, photograph) for face in faces]
    items += [Frame(spot) for spot in frames]
    items += [
        Badge(spot, number) for number, spot in enumerate(_badges(frames, photograph.spot), start=1)
    ]
    columns, gutter = 1 if len(faces) <= 3 else 2, 24
    width = (INNER - gutter * (columns - 1)) // columns
    y = photograph.spot.bottom + 36
    for start in range(0, len(faces), columns):
        row = range(start, min(start + columns, len(faces)))
        places = [Spot(MARGIN + (index - start) * (width + gutter), y, width, 0) for index in row]
        said = [
            _said(faces[index], language, place) for index, place in zip(row, places, strict=True)
        ]
        # Neighbours are equally high.
        height = max(_portrait_side(width), *map(_bottom, said)) + 2 * CELL_PADDING
        for index, place, words in zip(row, places, said, strict=True):
            items += _cell(faces[index], index + 1, words, replace(place, height=height))
        y += height + gutter
    notes = [say(language, "card.footnote")] if any(face.matches for face in faces) else []
    return _finished(items, y - gutter, notes)


def _cell(face: Face, number: int, words: list[Item], panel: Spot) -> list[Item]:
    """One face of the overview with its best match, on a white panel.

    Args:
        face: the face.
        number: the face's, counted from 1.
        words: what is said of it, from y = 0 down; see `_said`.
        panel: the panel.
    """
    side = _portrait_side(panel.width)
    chip = Spot(panel.x + CELL_PADDING, panel.y + (panel.height - side) // 2, side, side)
    items: list[Item] = [Panel(panel, 40), Portrait(chip, face, 36)]
    items.append(Badge(Spot(chip.x - 10, chip.y - 10, BADGE, BADGE), number))
    if face.matches and _wide(panel.width):
        items.append(Likeness(_cell_likeness(panel), face.matches[0]))
    return [*items, *_amid(words, panel.y, panel.height)]


def _said(face: Face, language: str, panel: Spot) -> list[Item]:
    """What an overview says of a face, from y = 0 down; only wide panels tell how strongly."""
    left = panel.x + CELL_PADDING + _portrait_side(panel.width) + 24
    width = panel.right - CELL_PADDING - left
    if not face.matches:
        return _paragraph(say(language, "card.nobody"), CELL_VERDICT, MUTED, left, 0, width, 2)
    best = face.matches[0]
    wide = _wide(panel.width)
    if wide:
        width = _cell_likeness(panel).x - 28 - left
    name, style = lettering.clean(best.name), CELL_NAME if wide else CELL_NAME_NARROW
    items = _paragraph(name, style, INK, left, 0, width, 2 if wide else 3, ROW_NAME_SMALLEST)
    word, tone = say(language, f"card.word_{best.verdict}"), TONES[best.verdict]
    items += _paragraph(word, CELL_VERDICT, tone, left, _bottom(items) + 4, width, 1, 26)
    if wide:
        strength = figures.strength(best, language)
        items += _paragraph(strength, CELL_WORDS, INK, left, _bottom(items) + 6, width, 2)
    return items


def _wide(width: int) -> bool:
    """Whether a panel is the only one of its row."""
    return width == INNER


def _portrait_side(width: int) -> int:
    return 160 if _wide(width) else 144


def _cell_likeness(panel: Spot) -> Spot:
    """Where a wide panel shows the best match, in the middle of its height."""
    disc = 108
    x = panel.right - CELL_PADDING - disc - 4
    return Spot(x, panel.y + (panel.height - disc) // 2, disc, disc)


def _photograph(analysis: Analysis, faces: tuple[Face, ...]) -> Photograph:
    """The panel at the top; of an extremely wide or tall photo, the part with the faces."""
    least, most = PANEL_HEIGHTS
    width, height = float(analysis.width_px), float(analysis.height_px)
    boxes = np.array([face.box for face in faces], np.float64)
    x1, x2 = _span(width, height * 3.0, boxes[:, 0].min(), boxes[:, 2].max())
    y1, y2 = _span(height, width * 2.0, boxes[:, 1].min(), boxes[:, 3].max())
    aspect = (x2 - x1) / (y2 - y1)
    panel = Spot(MARGIN, MARGIN, INNER, round(min(max(INNER / aspect, least), most)))
    scale = min(panel.width / (x2 - x1), panel.height / (y2 - y1))
    window_width = max(1, round((x2 - x1) * scale))
    window_height = max(1, round((y2 - y1) * scale))
    window = Spot(
        panel.x + (panel.width - window_width) // 2,
        panel.y + (panel.height - window_height) // 2,
        window_width,
        window_height,
    )
    return Photograph(panel, (x1, y1, x2, y2), window, PHOTOGRAPH_RADIUS)


def _span(length: float, most: float, first: float, last: float) -> tuple[float, float]:
    """A stretch of 0..length, no longer than `most` unless what must show needs it, round that."""
    needed = 1.5 * (min(last, length) - max(first, 0.0))
    kept = min(length, max(most, needed))
    start = min(max((first + last - kept) / 2, 0.0), length - kept)
    return start, start + kept


def _frame(face: Face, photograph: Photograph) -> Spot:
    """Where a face stands on the card, kept within the photo's window."""
    (x1, y1, x2, y2), view, window = face.box, photograph.view, photograph.window
    across = window.width / (view[2] - view[0])
    down = window.height / (view[3] - view[1])
    x, width = _within((x1 - view[0]) * across, (x2 - x1) * across, window.width)
    y, height = _within((y1 - view[1]) * down, (y2 - y1) * down, window.height)
    return Spot(window.x + x, window.y + y, width, height)


def _within(start: float, length: float, room: int) -> tuple[int, int]:
    """The part of a stretch within 0..room; never less than a frame needs to be seen."""
    least = min(3 * FRAME_STROKE, room)
    first = round(min(max(start, 0.0), room - least))
    last = round(min(max(start + length, first + least), room))
    return first, last - first


def _badges(frames: list[Spot], panel: Spot) -> list[Spot]:
    """A place for each frame's number: a corner of it, or the nearest place that is free."""
    taken: list[Spot] = []
    for frame in frames:
        places = (_badge_at(x, y, panel) for x, y in _around(frame))
        free = (spot for spot in places if not any(spot.overlaps(other) for other in taken))
        taken.append(next(free, _badge_at(frame.x, frame.y, panel)))
    return taken


def _around(frame: Spot) -> Iterator[tuple[int, int]]:
    """Middles of badges at a frame: its corners first, then further and further away."""
    out = BADGE // 5  # a small face is not to be hidden by its own number
    yield frame.x - out, frame.y - out
    yield frame.right + out, frame.y - out
    yield frame.right + out, frame.bottom + out
    yield frame.x - out, frame.bottom + out
    steps = range(-_BADGE_STEPS, _BADGE_STEPS + 1)
    for across, down in sorted(itertools.product(steps, steps), key=lambda step: math.hypot(*step)):
        yield frame.x - out + across * BADGE, frame.y - out + down * BADGE


def _badge_at(x: int, y: int, panel: Spot) -> Spot:
    """A badge with its middle there, or as near as the panel's edge lets it."""
    left = min(max(x - BADGE // 2, panel.x + 8), panel.right - BADGE - 8)
    top = min(max(y - BADGE // 2, panel.y + 8), panel.bottom - BADGE - 8)
    return Spot(left, top, BADGE, BADGE)


# ---------------------------------------------------------------------------- layout: shared parts


def _paragraph(
    text: str,
    style: Style,
    ink: str,
    x: int,
    y: int,
    width: int,
    lines: int,
    smallest: int | None = None,
) -> list[Item]:
    broken, style = lettering.fit(text, style, width_px=width, lines=lines, smallest_px=smallest)
    return _column(broken, style, ink, x, y)


def _column(
    lines: list[str] | tuple[str, ...], style: Style, ink: str, x: int, y: int
) -> list[Item]:
    height = style.line_height_px
    return [
        Text(
            Spot(x, y + index * height, round(lettering.measure(line, style)), height),
            line,
            style,
            ink,
        )
        for index, line in enumerate(lines)
    ]


def _moved(items: list[Item], down: int) -> list[Item]:
    return [replace(item, spot=replace(item.spot, y=item.spot.y + down)) for item in items]


def _bottom(items: list[Item]) -> int:
    return max((item.spot.bottom for item in items), default=0)


def _finished(items: list[Item], y: int, notes: list[str]) -> Layout:
    """The card with its foot: notes on the left, the wordmark on the right."""
    wordmark = "face-matcher"
    wordmark_width = round(lettering.measure(wordmark, WORDMARK))
    mark = Spot(WIDTH - MARGIN - wordmark_width - 58, y + 44, 46, 28)
    room = mark.x - 56 - MARGIN
    foot: list[Item] = []
    top = y + 40
    for note in notes:
        foot += _paragraph(note, NOTE, MUTED, MARGIN, top, room, 3)
        top = _bottom(foot)
    bottom = max(_bottom(foot), y + 40 + WORDMARK.line_height_px)
    mark = replace(mark, y=bottom - 31)
    foot.append(Mark(mark))
    foot += _column([wordmark], WORDMARK, MUTED, mark.right + 12, bottom - WORDMARK.line_height_px)
    return Layout(WIDTH, bottom + MARGIN - 8, (*items, *foot))
