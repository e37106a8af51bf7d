"""Draws the answer picture: a photo and what the engine saw in it become a PNG to forward.

Two steps. `compose` decides what stands where, as values that a test can measure; `draw` decodes
the photo and has `bot.canvas` paint them. The same photo and analysis give the same bytes.

Words follow the verdict that the engine gave. Bars and percentages are shares of belief, divided
among everybody whom the engine knows; the card says that they are nothing else.

It does not know where the photo came from, who will read the answer, or how a face was compared.
It does not judge whether a photo deserves a card (faces too small, too many); whoever calls has
refused already. Nothing is kept: no photo, no face.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bot import canvas, figures, lettering, portrait
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
PANEL_PADDING: Final = 32  # of the list, left and right
BAR_HEIGHT: Final = 14
SHARE_GAP: Final = 20  # between a bar and its percentage

# Letters.
NAME: Final = Style(68, 700)
NAME_SMALLEST: Final = 44
EYEBROW: Final = Style(36, 600)
WORDS: Final = Style(34, 400)
HEADING: Final = Style(32, 600)
ROW_NAME: Final = Style(38, 600)
ROW_NAME_SMALLEST: Final = 30
ROW_NAME_LONG: Final = Style(32, 600)
SHARE: Final = Style(44, 700)
ROW_SHARE: Final = Style(34, 600)
ROW_OTHERS: Final = Style(32, 400)
CELL_NAME: Final = Style(34, 600)
CELL_WORDS: Final = Style(30, 600)
NOTE: Final = Style(28, 400)
WORDMARK: Final = Style(28, 600)


@dataclass(frozen=True, slots=True)
class Share:
    """A match's share of belief as a card shows it.

    Attributes:
        words: in whole per cent.
        length: of its bar, 0 to 1.
    """

    words: str
    length: float


def draw(
    photo: bytes,
    analysis: Analysis,
    *,
    language: str,
    face: int | None = None,
    people: int | None = None,
) -> bytes:
    """Draw the answer to a photo.

    Args:
        photo: the picture file that was analysed.
        analysis: what the engine saw in it; at least one face.
        language: a key of `bot.texts.LANGUAGES`.
        face: index into `analysis.faces` for the card of that face alone; None for the card of
            the whole photo, which is the only face's card or an overview of the largest six.
        people: how many people the bundle that answered knows; None where that is not known.

    Returns:
        A PNG, 1080 px wide.

    Raises:
        ImageError: the photo cannot be decoded.
        ValueError: the analysis has no face.
        IndexError: there is no such face.
    """
    layout = compose(analysis, language=language, face=face, people=people)
    decoded = image.decode_scaled(photo, at_least_px=_sharp_enough(layout, analysis))
    return canvas.png(canvas.paint(layout, decoded))


def compose(
    analysis: Analysis, *, language: str, face: int | None = None, people: int | None = None
) -> Layout:
    """Decide what stands where on a card; same arguments and errors as `draw`."""
    faces = analysis.faces
    if not faces:
        raise ValueError("a card needs a face: answer a photo without one in words")
    if face is None and len(faces) > 1:
        return _overview(analysis, people, language)
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
    shown = _shown(matches, people, language)
    others = _others(matches, people, language)
    bars = _bars(likeness.right + 32, shown, others)
    items += _beside(chip, _story(matches[0], shown[0], language, bars))
    y = max(chip.bottom, _bottom(items))
    if matches[1:]:
        items += _column([say(language, "card.next")], HEADING, MUTED, MARGIN, y + 48)
        y = _bottom(items) - 28
    if matches[1:] or others:
        items += _list(matches[1:], shown[1:], others, bars, y + 48)
        y = _bottom(items)
    return _finished(items, y, [_footnote(people, language)])


def _bars(x: int, shown: Sequence[Share], others: tuple[str, str] | None) -> Spot:
    """Where the bars of a face's card begin, and their width: one for all, so that they compare.

    Args:
        x: where they begin.
        shown: the shares, the best match's first.
        others: everybody else's; see `_others`.
    """
    rows = [share.words for share in shown[1:]] + ([others[1]] if others else [])
    row_width = max((round(lettering.measure(words, ROW_SHARE)) for words in rows), default=0)
    best_width = _share_width(shown[0], SHARE)
    width = WIDTH - MARGIN - x - max(best_width, row_width + PANEL_PADDING) - SHARE_GAP
    return Spot(x, 0, width, 0)


def _beside(chip: Spot, story: list[Item]) -> list[Item]:
    """A story that begins at y = 0, level with a portrait's middle, but not above its top."""
    return _moved(story, chip.y + max(0, (chip.height - _bottom(story)) // 2))


def _nobody(language: str, x: int, width: int) -> list[Item]:
    """What is said where nobody is known, from y = 0 down."""
    items = _paragraph(say(language, "card.nobody"), EYEBROW, MUTED, x, 0, width, 2)
    name = say(language, "card.nobody_name")
    return [*items, *_paragraph(name, NAME, INK, x, _bottom(items) + 12, width, 3, 44)]


def _story(best: Match, shown: Share, language: str, bars: Spot) -> list[Item]:
    """What is said of the best match, from y = 0 down."""
    x, tone = bars.x, TONES[best.verdict]
    width = WIDTH - MARGIN - x
    items = _paragraph(say(language, f"card.{best.verdict}"), EYEBROW, tone, x, 0, width, 2, 30)
    name = lettering.clean(best.name)
    items += _paragraph(name, NAME, INK, x, _bottom(items) + 8, width, 3, NAME_SMALLEST)
    share_width = _share_width(shown, SHARE)
    line = Spot(x, _bottom(items) + 16, bars.width + SHARE_GAP + share_width, 20)
    items += _measured(shown, tone, SHARE, line, share_width)
    items += _paragraph(_rarity(best, language), WORDS, MUTED, x, _bottom(items) + 12, width, 4, 30)
    return items


def _list(
    matches: tuple[Match, ...],
    shown: Sequence[Share],
    others: tuple[str, str] | None,
    bars: Spot,
    y: int,
) -> list[Item]:
    """The matches after the best on a white panel, and below them everybody else.

    Args:
        matches: best first.
        shown: their shares.
        others: what everybody else is called, and their share; None where there is nobody.
        bars: see `_bars`.
        y: top of the panel.
    """
    row, disc, last = 104, 80, 76
    panel = Spot(MARGIN, y, INNER, row * len(matches) + 16 + (last if others else 0))
    items: list[Item] = [Panel(panel, 40)]
    right = panel.right - PANEL_PADDING
    left = panel.x + PANEL_PADDING + (disc + 28 if matches else 0)
    for index, (match, share) in enumerate(zip(matches, shown, strict=True)):
        top = panel.y + 8 + index * row
        if index:
            items.append(Rule(Spot(left, top - 1, right - left, 2)))
        spot = Spot(panel.x + PANEL_PADDING, top + (row - disc) // 2, disc, disc)
        items.append(Likeness(spot, match))
        room = bars.x - 28 - left
        items += _amid(_row_name(match.name, left, room), top, row)
        items.append(
            Bar(
                Spot(bars.x, top + (row - BAR_HEIGHT) // 2, bars.width, BAR_HEIGHT),
                share.length,
                TONES[match.verdict],
            )
        )
        x = right - _share_width(share, ROW_SHARE)
        items += _amid(_column([share.words], ROW_SHARE, INK, x, 0), top, row)
    if others:
        # Without a bar: all others together are often far more than the one whose bar is full.
        top = panel.bottom - 8 - last
        if matches:
            items.append(Rule(Spot(left, top - 1, right - left, 2)))
        called, words = others
        x = right - round(lettering.measure(words, ROW_SHARE))
        items += _amid(
            _paragraph(called, ROW_OTHERS, MUTED, left, 0, x - 28 - left, 1, 26), top, last
        )
        items += _amid(_column([words], ROW_SHARE, MUTED, x, 0), top, last)
    return items


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


def _overview(analysis: Analysis, people: int | None, language: str) -> Layout:
    faces = analysis.faces[:MOST_FACES]
    # Of everybody named on this card, whoever has most has the full bar.
    full = max((_probability(face.matches[0]) for face in faces if face.matches), default=0.0)
    shown = [_shown(face.matches[:1], people, language, full) for face in faces]
    # One for all cells, so that their bars have one length and can be compared.
    share_width = max(
        (_share_width(share, CELL_WORDS) for each in shown for share in each), default=0
    )
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
        row = [
            _cell(
                faces[index],
                shown[index],
                share_width,
                index + 1,
                language,
                Spot(MARGIN + (index - start) * (width + gutter), y, width, 0),
            )
            for index in range(start, min(start + columns, len(faces)))
        ]
        items += [item for cell in row for item in cell]
        y = _bottom(items) + 24
    notes = [_footnote(people, language)] if any(face.matches for face in faces) else []
    if hidden := len(analysis.faces) - len(faces):
        notes.insert(0, say(language, "card.more", count=hidden))
    return _finished(items, y - 24, notes)


def _cell(
    face: Face,
    shown: Sequence[Share],
    share_width: int,
    number: int,
    language: str,
    place: Spot,
) -> list[Item]:
    """One face of the overview with its best match, on a white panel.

    Args:
        face: the face.
        shown: the best match's share, where there is one.
        share_width: room for a percentage, in pixels.
        number: the face's, counted from 1.
        language: a key of `bot.texts.LANGUAGES`.
        place: where the panel begins, and its width.
    """
    padding = 24
    wide = place.width == INNER
    side = 160 if wide else 144
    panel = replace(place, height=side + 2 * padding)
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
    word, tone = say(language, f"card.word_{best.verdict}"), TONES[best.verdict]
    line = Spot(left, _bottom(said) + 6, text_width, 12)
    said += _measured(shown[0], tone, CELL_WORDS, line, share_width)
    said += _paragraph(word, CELL_WORDS, tone, left, _bottom(said) + 4, text_width, 1, 26)
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


def _shown(
    matches: Sequence[Match], people: int | None, language: str, full: float | None = None
) -> tuple[Share, ...]:
    """The shares of the matches that a card names of one face.

    A bar's length is the share over the largest one of those named on the card, which therefore
    fills its bar: among hundreds of people even the nearest one's share may be small, and bars that
    are all but empty would show nothing. The percentages beside them are the true ones.

    Args:
        matches: best first.
        people: how many people the bundle knows; None where that is not known.
        language: a key of `bot.texts.LANGUAGES`.
        full: the probability whose bar is full; None is the best match's.
    """
    full = max(map(_probability, matches), default=0.0) if full is None else full
    return tuple(
        Share(
            figures.spell(percent, language, alone=people == 1),
            _probability(match) / full if full else 0.0,
        )
        for match, percent in zip(matches, figures.percents(matches, people)[0], strict=True)
    )


def _probability(match: Match) -> float:
    return min(max(match.probability, 0.0), 1.0)


def _others(matches: Sequence[Match], people: int | None, language: str) -> tuple[str, str] | None:
    """What everybody but the named is called, and their share; None where there is nobody else."""
    if people is not None and people <= len(matches):
        return None
    called = (
        say(language, "card.others_all")
        if people is None
        else say(language, "card.others", count=people - len(matches))
    )
    return called, figures.spell(figures.percents(matches, people)[1], language)


def _footnote(people: int | None, language: str) -> str:
    """What the percentages are."""
    if people is None:
        return say(language, "card.footnote_all")
    return say(language, "card.footnote", count=people)


def _rarity(match: Match, language: str) -> str:
    """How rare such a likeness is, in figures only where they impress."""
    match match.verdict:
        case Verdict.SOME:
            return say(language, "card.touch")
        case Verdict.FAINT:
            return say(language, "card.afar")
    number = figures.one_in(match)
    if number is None:
        return say(language, "card.unlike_most")
    return say(language, "card.rare", count=number)


def _share_width(share: Share, style: Style) -> int:
    return round(lettering.measure(share.words, style))


def _measured(share: Share, tone: str, style: Style, line: Spot, room: int) -> list[Item]:
    """A bar with its percentage on the right, whose letters set the height.

    Args:
        share: what is shown.
        tone: the bar's and the letters' colour.
        style: the letters'.
        line: where both begin and how wide they are together; its height is the bar's.
        room: width that the percentage may take.
    """
    down = (style.line_height_px - line.height) // 2
    bar = replace(line, y=line.y + down, width=line.width - room - SHARE_GAP)
    words = _column([share.words], style, tone, line.right - _share_width(share, style), line.y)
    return [Bar(bar, share.length, tone), *words]


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
