"""Draws a video challenge: one tile for each step, an arrow in each, numbered in their order.

Knows nothing about how movements are judged. Sides are drawn as arrows to the left and right; in a
mirror they change places, which the judge allows for.
"""

import math
from typing import Final

from bot.drawing import canvas, lettering
from bot.drawing.canvas import INK, MUTED, TONES, Arrow, Item, Layout, Panel, Spot, Text
from bot.drawing.lettering import Style
from bot.login.liveness import Challenge, Step
from bot.texts import say
from engine.types import Verdict

WIDTH: Final = 1080
MARGIN: Final = 56
INNER: Final = WIDTH - 2 * MARGIN
GAP: Final = 24
TILE_HEIGHT: Final = 308
ARROW: Final = 124
TITLE: Final = Style(44, 700)
NUMBER: Final = Style(34, 600)
WORD: Final = Style(34, 600)
NOTE: Final = Style(30, 400)
DEGREES: Final = {Step.SIDE: 180.0, Step.OTHER_SIDE: 0.0, Step.UP: 90.0, Step.DOWN: 270.0}
"""Where each step's arrow points, counter-clockwise from the right."""


def draw(challenge: Challenge, language: str) -> bytes:
    """Draw a challenge as a PNG, 1080 px wide.

    Args:
        challenge: what is to be done.
        language: a key of `bot.texts.LANGUAGES`.
    """
    return canvas.png(canvas.paint(compose(challenge, language)))


def compose(challenge: Challenge, language: str) -> Layout:
    """Decide what stands where; same arguments as `draw`."""
    items, y = _paragraph(say(language, "challenge.title"), TITLE, INK, MARGIN)
    y += 32
    count = len(challenge.steps)
    width = (INNER - (count - 1) * GAP) // count
    for place, step in enumerate(challenge.steps):
        tile = Spot(MARGIN + place * (width + GAP), y, width, TILE_HEIGHT)
        items += _tile(place + 1, step, tile, say(language, _word(step, challenge)))
    y += TILE_HEIGHT + 36
    for sentence in ("challenge.between", "challenge.mirror"):
        lines, y = _paragraph(say(language, sentence), NOTE, MUTED, y)
        items += lines
        y += 12
    return Layout(WIDTH, y + MARGIN, tuple(items))


def _word(step: Step, challenge: Challenge) -> str:
    """The key of what a step is called: whichever side comes first is "one side"."""
    sides = [each for each in challenge.steps if each in (Step.SIDE, Step.OTHER_SIDE)]
    if step in sides:
        return "challenge.side" if step is sides[0] else "challenge.other_side"
    return "challenge.up" if step is Step.UP else "challenge.down"


def _tile(number: int, step: Step, tile: Spot, word: str) -> list[Item]:
    arrow = Spot(tile.x + (tile.width - ARROW) // 2, tile.y + 88, ARROW, ARROW)
    below = tile.bottom - 24 - WORD.line_height_px
    return [
        Panel(tile, 36),
        _middle(str(number), NUMBER, MUTED, tile, tile.y + 24),
        Arrow(arrow, DEGREES[step], TONES[Verdict.STRONG]),
        _middle(word, WORD, INK, tile, below),
    ]


def _paragraph(text: str, style: Style, ink: str, y: int) -> tuple[list[Item], int]:
    """Lines below each other from `y` on, and where they end."""
    lines, style = lettering.fit(text, style, width_px=INNER, lines=3)
    items: list[Item] = []
    for line in lines:
        items.append(Text(Spot(MARGIN, y, INNER, style.line_height_px), line, style, ink))
        y += style.line_height_px
    return items, y


def _middle(text: str, style: Style, ink: str, tile: Spot, y: int) -> Text:
    width = math.ceil(lettering.measure(text, style))
    x = tile.x + (tile.width - width) // 2
    return Text(Spot(x, y, width, style.line_height_px), text, style, ink)
