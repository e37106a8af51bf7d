"""Draws the answer picture: a photo and what the engine saw in it become a PNG to forward.

Two steps. `compose` decides what stands where, as values that a test can measure; `draw` decodes
the photo and has `bot.canvas` paint them. The same photo and analysis give the same bytes.

It does not know where the photo came from, who will read the answer, or how a face was compared:
words follow the verdict that the engine gave, and a percentile is only ever called what it is. It
does not judge whether a photo deserves a card (faces too small, too many); whoever calls has
refused already. Nothing is kept: no photo, no face.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from bot import canvas, lettering, portrait
from bot.canvas import (
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
from bot.captions import of_hundred
from bot.lettering import Style
from bot.texts import say
from engine import image
from engine.types import Analysis, Face, Match, Verdict

MOST_FACES: Final = 6
"""Faces that an overview shows; the largest ones, as `Analysis` orders them."""
MOST_MATCHES: Final = 5
"""Matches that a face's card shows."""

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

# Letters.
NAME: Final = Style(68, 700)
NAME_SMALLEST: Final = 44
EYEBROW: Final = Style(36, 600)
WORDS: Final = Style(34, 400)
HEADING: Final = Style(32, 600)
ROW_NAME: Final = Style(38, 600)
ROW_NAME_SMALLEST: Final = 30
ROW_WORDS: Final = Style(30, 400)
CELL_NAME: Final = Style(34, 600)
CELL_WORDS: Final = Style(30, 600)
NOTE: Final = Style(28, 400)
WORDMARK: Final = Style(28, 600)


def draw(photo: bytes, analysis: Analysis, *, language: str, face: int | None = None) -> bytes:
    """Draw the answer to a photo.

    Args:
        photo: the picture file that was analysed.
        analysis: what the engine saw in it; at least one face.
        language: a key of `bot.texts.LANGUAGES`.
        face: index into `analysis.faces` for the card of that face alone; None for the card of
            the whole photo, which is the only face's card or an overview of the largest six.

    Returns:
        A PNG, 1080 px wide.

    Raises:
        ImageError: the photo cannot be decoded.
        ValueError: the analysis has no face.
        IndexError: there is no such face.
    """
    layout = compose(analysis, language=language, face=face)
    decoded = image.decode_scaled(photo, at_least_px=_sharp_enough(layout, analysis))
    return canvas.png(canvas.paint(layout, decoded))


def compose(analysis: Analysis, *, language: str, face: int | None = None) -> Layout:
    """Decide what stands where on a card; same arguments and errors as `draw`."""
    faces = analysis.faces
    if not faces:
        raise ValueError("a card needs a face: answer a photo without one in words")
    if face is None and len(faces) > 1:
        return _overview(analysis, language)
    index = face or 0
    if not 0 <= index < len(faces):
        raise IndexError(f"there is no face {index} among {len(faces)}")
    return _face_card(faces[index], index + 1 if len(faces) > 1 else None, language)


# ---------------------------------------------------------------------------------- layout: a face


def _face_card(face: Face, number: int | None, language: str) -> Layout:
    chip = Spot(MARGIN, MARGIN, PORTRAIT, PORTRAIT)
    items: list[Item] = [Portrait(chip, face, PORTRAIT_RADIUS, lifted=True)]
    matches = face.matches[:MOST_MATCHES]
    if matches:
        likeness = Spot(chip.right - 132, chip.bottom - 164, LIKENESS, LIKENESS)
        items.append(Likeness(likeness, matches[0], ring=12))
        left = likeness.right + 32
    else:
        left = chip.right + 56
    if number is not None:
        items.append(Badge(Spot(chip.x + 20, chip.y + 20, BADGE + 8, BADGE + 8), number))
    story = _story(matches[0] if matches else None, language, left, WIDTH - MARGIN - left)
    height = _bottom(story)
    items += _moved(story, chip.y + max(0, (PORTRAIT - height) // 2))
    y = max(chip.bottom, _bottom(items))
    if matches[1:]:
        items += _column([say(language, "card.next")], HEADING, MUTED, MARGIN, y + 48)
        y = _bottom(items) + 20
        items += _list(matches[1:], language, y)
        y = _bottom(items)
    return _finished(items, y, [say(language, "card.footnote")] if matches else [])


def _story(best: Match | None, language: str, x: int, width: int) -> list[Item]:
    """What is said of the best match, from y = 0 down."""
    if best is None:
        items = _paragraph(say(language, "card.nobody"), EYEBROW, MUTED, x, 0, width, 2)
        name = say(language, "card.nobody_name")
        return [*items, *_paragraph(name, NAME, INK, x, _bottom(items) + 12, width, 3, 44)]
    tone = TONES[best.verdict]
    items = _paragraph(say(language, f"card.{best.verdict}"), EYEBROW, tone, x, 0, width, 2, 30)
    name = lettering.clean(best.name)
    items += _paragraph(name, NAME, INK, x, _bottom(items) + 8, width, 3, NAME_SMALLEST)
    items.append(_bar(best, x, _bottom(items) + 26, width, 20))
    words = _closeness(best, language)
    items += _paragraph(words, WORDS, MUTED, x, _bottom(items) + 20, width, 3)
    return items


def _list(matches: tuple[Match, ...], language: str, y: int) -> list[Item]:
    """The matches after the best, on a white panel."""
    row, padding, disc, gap = 124, 32, 84, 28
    panel = Spot(MARGIN, y, INNER, row * len(matches) + 16)
    items: list[Item] = [Panel(panel, 40)]
    left = panel.x + padding + disc + gap
    width = panel.right - padding - left
    for index, match in enumerate(matches):
        top = panel.y + 8 + index * row
        if index:
            items.append(Rule(Spot(left, top - 1, width, 2)))
        spot = Spot(panel.x + padding, top + (row - disc) // 2, disc, disc)
        items.append(Likeness(spot, match))
        words = _closeness(match, language, short=True)
        words_width = round(lettering.measure(words, ROW_WORDS))
        room = width - words_width - 28
        name = _paragraph(
            lettering.clean(match.name), ROW_NAME, INK, left, 0, room, 1, ROW_NAME_SMALLEST
        )
        # Name and words share a baseline, however small the name became.
        items += _moved(name, top + 22 + ROW_NAME.line_height_px - _bottom(name))
        items += _column(
            [words],
            ROW_WORDS,
            MUTED,
            left + width - words_width,
            top + 20 + ROW_NAME.line_height_px - ROW_WORDS.line_height_px,
        )
        items.append(_bar(match, left, top + 22 + ROW_NAME.line_height_px + 14, width, 12))
    return items


# -------------------------------------------------------------------------------- layout: overview


def _overview(analysis: Analysis, language: str) -> Layout:
    faces = analysis.faces[:MOST_FACES]
    photograph = _photograph(analysis, faces)
    items: list[Item] = [photograph]
    frames = [_frame(face, photograph) for face in faces]
    items += [Frame(spot) for spot in frames]
    items += [
        Badge(spot, number) for number, spot in enumerate(_badges(frames, photograph.spot), start=1)
    ]
    columns = 1 if len(faces) <= 3 else 2
    y = photograph.spot.bottom + 36
    for start in range(0, len(faces), columns):
        row = [
            _cell(faces[index], index + 1, language, index - start, columns, y)
            for index in range(start, min(start + columns, len(faces)))
        ]
        items += [item for cell in row for item in cell]
        y = _bottom(items) + 24
    notes = [say(language, "card.footnote")] if any(face.matches for face in faces) else []
    if hidden := len(analysis.faces) - len(faces):
        notes.insert(0, say(language, "card.more", count=hidden))
    return _finished(items, y - 24, notes)


def _cell(face: Face, number: int, language: str, column: int, columns: int, y: int) -> list[Item]:
    """One face of the overview with its best match, on a white panel."""
    gutter, padding = 24, 24
    wide = columns == 1
    width = (INNER - gutter * (columns - 1)) // columns
    side = 160 if wide else 144
    panel = Spot(MARGIN + column * (width + gutter), y, width, side + 2 * padding)
    chip = Spot(panel.x + padding, panel.y + padding, side, side)
    left = chip.right + 24
    text_width = panel.right - padding - left
    items: list[Item] = [Panel(panel, 40), Portrait(chip, face, 36)]
    items.append(Badge(Spot(chip.x - 10, chip.y - 10, BADGE, BADGE), number))
    best = face.matches[0] if face.matches else None
    if best is None:
        said = _paragraph(say(language, "card.nobody"), CELL_WORDS, MUTED, left, 0, text_width, 2)
        return [*items, *_moved(said, chip.y + (side - _bottom(said)) // 2)]
    if wide:
        disc = 108
        spot = Spot(panel.right - padding - disc - 4, chip.y + (side - disc) // 2, disc, disc)
        items.append(Likeness(spot, best))
        text_width = spot.x - 28 - left
    name_style, lines = (ROW_NAME, 1) if wide else (CELL_NAME, 2)
    name = lettering.clean(best.name)
    said = _paragraph(name, name_style, INK, left, 0, text_width, lines, ROW_NAME_SMALLEST)
    said.append(_bar(best, left, _bottom(said) + 10, text_width, 12))
    word, tone = say(language, f"card.word_{best.verdict}"), TONES[best.verdict]
    said += _paragraph(word, CELL_WORDS, tone, left, _bottom(said) + 10, text_width, 1, 26)
    if wide:
        words = _closeness(best, language)
        said += _paragraph(words, NOTE, MUTED, left, _bottom(said), text_width, 1, 26)
    return [*items, *_moved(said, chip.y + (side - _bottom(said)) // 2)]


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
    steps = range(-MOST_FACES, MOST_FACES + 1)
    for across, down in sorted(itertools.product(steps, steps), key=lambda step: math.hypot(*step)):
        yield frame.x - out + across * BADGE, frame.y - out + down * BADGE


def _badge_at(x: int, y: int, panel: Spot) -> Spot:
    """A badge with its middle there, or as near as the panel's edge lets it."""
    left = min(max(x - BADGE // 2, panel.x + 8), panel.right - BADGE - 8)
    top = min(max(y - BADGE // 2, panel.y + 8), panel.bottom - BADGE - 8)
    return Spot(left, top, BADGE, BADGE)


# ---------------------------------------------------------------------------- layout: shared parts


def _closeness(match: Match, language: str, *, short: bool = False) -> str:
    """What a match's percentile says, in words."""
    suffix = "_short" if short else ""
    if match.verdict is Verdict.IS:
        return say(language, f"card.alike{suffix}")
    percent = of_hundred(match)
    if percent < 1:
        return say(language, f"card.no_closer{suffix}")
    return say(language, f"card.closer{suffix}", percent=percent)


def _bar(match: Match, x: int, y: int, width: int, height: int) -> Bar:
    share = min(max(match.percentile / 100, 0.0), 1.0)
    return Bar(Spot(x, y, width, height), share, TONES[match.verdict])


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


def _sharp_enough(layout: Layout, analysis: Analysis) -> int:
    """The longer side that the photo must keep for nothing on the card to lose detail."""
    scale = 0.0
    for item in layout.items:
        match item:
            case Photograph(_, view, window):
                scale = max(scale, window.width / (view[2] - view[0]))
            case Portrait(spot, face):
                scale = max(scale, portrait.zoom(face, spot.width))
    return math.ceil(min(scale, 1.0) * max(analysis.width_px, analysis.height_px))
