"""Paints a layout: rounded, anti-aliased shapes, letters, faces and the photo, onto paper.

Has the card's palette. Knows nothing about why a thing stands where it stands, about languages, or
about what a match means: `bot.drawing.card` has decided all that.
"""

import functools
import hashlib
import io
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from bot.drawing import lettering, portrait
from bot.drawing.lettering import Style
from engine.errors import ImageError
from engine.media import image
from engine.types import Box, Face, Match, Verdict

PAPER: Final = "#F5F1EA"
SURFACE: Final = "#FFFFFF"
INK: Final = "#23262F"
MUTED: Final = "#6F727C"
HAIRLINE: Final = "#ECE7DE"
TRACK: Final = "#E6E0D5"
SHADOW: Final = "#4A3F2C"
TONES: Final = {
    Verdict.IS: "#23805F",
    Verdict.STRONG: "#4A5BB8",
    Verdict.GOOD: "#23758A",
    Verdict.SOME: "#B4712A",
    Verdict.FAINT: "#94597F",
}
MONOGRAMS: Final = (
    ("#DCE5F5", "#3D5591"),
    ("#DDEBE3", "#2F6B52"),
    ("#F3E3D3", "#8A5524"),
    ("#EADFF0", "#6A4785"),
    ("#F4DEDE", "#914747"),
    ("#DCEBEE", "#2C6872"),
    ("#EFE8CF", "#77641F"),
    ("#E4E3DF", "#55534C"),
)

FRAME_STROKE: Final = 5  # px
BAR_LEAST: Final = 6  # px that even the least share fills
_SMOOTH: Final = 4  # times as large as shown, before an arrow is made smaller


@dataclass(frozen=True, slots=True)
class Spot:
    """A rectangle of the card, in whole pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column right of the rectangle."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the rectangle."""
        return self.y + self.height

    def overlaps(self, other: "Spot") -> bool:
        """Whether the two share a pixel."""
        return (
            self.x < other.right
            and other.x < self.right
            and self.y < other.bottom
            and other.y < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Text:
    """One line of letters; `spot` is as wide as the pen moves and as high as a line."""

    spot: Spot
    text: str
    style: Style
    ink: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a whole: `share` of the width, 0 to 1."""

    spot: Spot
    share: float
    ink: str


@dataclass(frozen=True, slots=True)
class Portrait:
    """A face of the photo, upright; `lifted` off the paper by a shadow or not."""

    spot: Spot
    face: Face
    radius: int
    lifted: bool = False


@dataclass(frozen=True, slots=True)
class Likeness:
    """The person of a match: the bundle's picture of them, or their initials; a disc."""

    spot: Spot
    match: Match
    ring: int = 0


@dataclass(frozen=True, slots=True)
class Photograph:
    """The photo.

    Attributes:
        spot: the panel it stands in, filled up with its own blurred colours.
        view: the part of the photo that shows, in the photo's pixels.
        window: where that part stands.
        radius: of the panel's corners.
    """

    spot: Spot
    view: Box
    window: Spot
    radius: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A line round a face in the photo."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Badge:
    """A face's number, counted from 1 as the buttons below the card count."""

    spot: Spot
    number: int


@dataclass(frozen=True, slots=True)
class Panel:
    """A white area with rounded corners that lies on the paper."""

    spot: Spot
    radius: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A hairline."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Mark:
    """The two overlapping discs before the wordmark."""

    spot: Spot


@dataclass(frozen=True, slots=True)
class Arrow:
    """An arrow with a round tail; `degrees` counter-clockwise from pointing right."""

    spot: Spot
    degrees: float
    ink: str


Item = Text | Bar | Portrait | Likeness | Photograph | Frame | Badge | Panel | Rule | Mark | Arrow


@dataclass(frozen=True, slots=True)
class Layout:
    """A card before it is painted: later items lie over earlier ones."""

    width: int
    height: int
    items: tuple[Item, ...]


def paint(layout: Layout, photo: image.Photo | None = None) -> Image.Image:
    """Paint a card.

    Args:
        layout: faces and views in it are in pixels of the original photo.
        photo: None for a layout that shows nothing of one.
    """
    picture = Image.new("RGB", (1, 1)) if photo is None else photo.image
    shrunk = 1.0 if photo is None else picture.width / photo.width_px
    card = Image.new("RGB", (layout.width, layout.height), PAPER)
    pen = ImageDraw.Draw(card)
    for item in layout.items:
        match item:
            case Text(spot, text, style, ink):
                lettering.write(pen, spot.x, spot.y, text, style, ink)
            case Bar(spot, share, ink):
                _fill(card, spot, spot.height // 2, TRACK)
                if share > 0:
                    _fill_part(card, spot, share, ink)
            case Portrait(spot, face, radius, lifted):
                if lifted:
                    _shade(card, spot, radius)
                _place(
                    card,
                    spot,
                    radius,
                    portrait.cut(picture, face, shrunk, spot.width, ground=TRACK),
                )
            case Likeness(spot, match, ring):
                _paint_likeness(card, spot, match, ring)
            case Photograph(spot, view, window, radius):
                _shade(card, spot, radius)
                panel = _panel(picture, spot, view, shrunk, window)
                _place(card, spot, radius, panel)
            case Frame(spot):
                _outline(card, spot)
            case Badge(spot, number):
                _paint_badge(card, spot, number)
            case Panel(spot, radius):
                _shade(card, spot, radius)
                _fill(card, spot, radius, SURFACE)
            case Arrow(spot, degrees, ink):
                card.paste(ink, (spot.x, spot.y), _arrow(spot.width, degrees))
            case Rule(spot):
                card.paste(HAIRLINE, (spot.x, spot.y, spot.right, spot.bottom))
            case Mark(spot):
                disc = replace(spot, width=spot.height)
                _fill(card, disc, spot.height // 2, TONES[Verdict.STRONG], opacity=0.75)
                disc = replace(disc, x=spot.right - spot.height)
                _fill(card, disc, spot.height // 2, TONES[Verdict.SOME], opacity=0.75)
    return card


def png(card: Image.Image) -> bytes:
    """The card as a PNG file; the same card, the same bytes."""
    out = io.BytesIO()
    card.save(out, "PNG", compress_level=2)  # 6 takes thrice the time for 6 % less
    return out.getvalue()


def _panel(photo: Image.Image, spot: Spot, view: Box, shrunk: float, window: Spot) -> Image.Image:
    """The photo in its panel, on its own blurred colours where the shapes differ."""
    x1, y1, x2, y2 = (edge * shrunk for edge in view)
    # The shrunk photo may be a fraction of a pixel smaller than the original's size says.
    box = (x1, y1, min(x2, photo.width), min(y2, photo.height))
    size = (window.width, window.height)
    shown = photo.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    if window == spot:
        return shown
    panel = (
        shown.resize((24, 16), Image.Resampling.BOX)
        .filter(ImageFilter.GaussianBlur(2))
        .resize((spot.width, spot.height), Image.Resampling.BICUBIC)
    )
    panel.paste(shown, (window.x - spot.x, window.y - spot.y))
    return panel


def _paint_likeness(card: Image.Image, spot: Spot, match: Match, ring: int) -> None:
    if ring:
        around = Spot(spot.x - ring, spot.y - ring, spot.width + 2 * ring, spot.height + 2 * ring)
        _fill(card, around, around.width // 2, PAPER)
    picture = _thumbnail(match.thumbnail, spot.width) if match.thumbnail else None
    if picture is not None:
        _place(card, spot, spot.width // 2, picture)
        return
    name = lettering.clean(match.name)
    ground, ink = MONOGRAMS[hashlib.sha256(name.encode()).digest()[0] % len(MONOGRAMS)]
    _fill(card, spot, spot.width // 2, ground)
    letters = initials(name)
    if lettering.drawable(letters):
        _centred(card, spot, letters, Style(round(spot.width * 0.38), 600), ink)
    else:
        _silhouette(card, spot, ink)


def _silhouette(card: Image.Image, spot: Spot, ink: str) -> None:
    """Head and shoulders, for a name whose letters nobody here can draw."""
    ground = card.crop((spot.x, spot.y, spot.right, spot.bottom))
    side = spot.width
    head, shoulders = round(side * 0.36), round(side * 0.72)
    top = round(side * 0.2)
    _fill(ground, Spot((side - head) // 2, top, head, head), head // 2, ink)
    below = Spot((side - shoulders) // 2, top + head + round(side * 0.06), shoulders, shoulders)
    _fill(ground, below, shoulders // 2, ink)
    _place(card, spot, side // 2, ground)


def initials(name: str) -> str:
    """The first letters of a name's first and last word; nothing where it has no letters."""
    words = ["".join(filter(str.isalpha, word)) for word in name.split()]
    words = [word for word in words if word]
    return "".join(word[0].upper()[0] for word in (words[:1] + words[1:][-1:]))


def _thumbnail(jpeg: bytes, side: int) -> Image.Image | None:
    """The bundle's picture of a person, or None where it cannot be read."""
    try:
        picture = image.decode(jpeg)
    except ImageError:
        return None
    short = min(picture.size)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.LANCZOS, box=box)


def _paint_badge(card: Image.Image, spot: Spot, number: int) -> None:
    _fill(card, spot, spot.width // 2, SURFACE)
    inner = Spot(spot.x + 4, spot.y + 4, spot.width - 8, spot.height - 8)
    _fill(card, inner, inner.width // 2, INK)
    _centred(card, inner, str(number), Style(round(spot.height * 0.54), 700), SURFACE)


def _centred(card: Image.Image, spot: Spot, text: str, style: Style, ink: str) -> None:
    """Capitals or digits in the middle of a spot."""
    width = lettering.measure(text, style)
    capital = 0.73 * style.size_px  # Inter's capital height
    baseline = spot.y + (spot.height + capital) / 2
    top = baseline - style.size_px * lettering.BASELINE
    pen = ImageDraw.Draw(card)
    lettering.write(pen, spot.x + (spot.width - width) / 2, top, text, style, ink)


def _arrow(side: int, degrees: float) -> Image.Image:
    """A square mask, smooth at its edges."""
    large = side * _SMOOTH
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    middle, thick = large / 2, large / 7
    tail = (large * 0.06, middle - thick / 2, large * 0.7, middle + thick / 2)
    pen.rounded_rectangle(tail, thick / 2, fill=255)
    head = [(large * 0.55, large * 0.2), (large * 0.96, middle), (large * 0.55, large * 0.8)]
    pen.polygon(head, fill=255)
    turned = mask.rotate(degrees, Image.Resampling.BICUBIC)
    return turned.resize((side, side), Image.Resampling.LANCZOS)


def _outline(card: Image.Image, spot: Spot) -> None:
    """A white line with a dark edge, seen on any ground."""
    for grown, colour, opacity in ((2, INK, 0.35), (0, SURFACE, 1.0)):
        around = Spot(
            spot.x - grown, spot.y - grown, spot.width + 2 * grown, spot.height + 2 * grown
        )
        stroke = FRAME_STROKE + 2 * grown
        radius = min(20 + grown, min(around.width, around.height) // 2)
        mask = _rounded(around.width, around.height, radius).copy()
        hole = Spot(stroke, stroke, around.width - 2 * stroke, around.height - 2 * stroke)
        if hole.width > 0 and hole.height > 0:
            inner = max(1, min(radius - stroke, min(hole.width, hole.height) // 2))
            mask.paste(0, (hole.x, hole.y), _rounded(hole.width, hole.height, inner))
        if opacity < 1:
            mask = mask.point([round(value * opacity) for value in range(256)])
        card.paste(colour, (around.x, around.y), mask)


def _fill(card: Image.Image, spot: Spot, radius: int, colour: str, *, opacity: float = 1.0) -> None:
    mask = _rounded(spot.width, spot.height, radius)
    if opacity < 1:
        mask = mask.point([round(value * opacity) for value in range(256)])
    card.paste(colour, (spot.x, spot.y), mask)


def _fill_part(card: Image.Image, spot: Spot, share: float, ink: str) -> None:
    """The left part of a bar with round ends, as long as its share; at least a dot to be seen."""
    filled = max(BAR_LEAST, round(spot.width * share))
    track = _rounded(spot.width, spot.height, spot.height // 2).crop((0, 0, filled, spot.height))
    part = _rounded(filled, spot.height, min(filled, spot.height) // 2)
    card.paste(ink, (spot.x, spot.y), ImageChops.darker(track, part))


def _place(card: Image.Image, spot: Spot, radius: int, picture: Image.Image) -> None:
    card.paste(picture, (spot.x, spot.y), _rounded(spot.width, spot.height, radius))


def _shade(card: Image.Image, spot: Spot, radius: int) -> None:
    """A soft shadow a little below a spot."""
    reach, down = 22, 8
    mask = _shadow(spot.width, spot.height, radius, reach)
    card.paste(SHADOW, (spot.x - reach, spot.y - reach + down), mask)


@functools.lru_cache(maxsize=64)
def _rounded(width: int, height: int, radius: int) -> Image.Image:
    """A rectangle with round corners as an anti-aliased mask: coverage by distance to its edge."""
    return _mask(0.5 - _distance(width, height, radius, 0))


@functools.lru_cache(maxsize=16)
def _shadow(width: int, height: int, radius: int, reach: int) -> Image.Image:
    """A mask that fades out over `reach` pixels on both sides of the rectangle's edge."""
    near = np.clip(0.5 - _distance(width, height, radius, reach) / (2 * reach), 0, 1)
    return _mask(0.16 * near * near * (3 - 2 * near))


def _distance(width: int, height: int, radius: int, around: int) -> NDArray[np.float32]:
    """Signed distance of each pixel's centre to a rounded rectangle's edge; inside is negative."""
    x = np.abs(np.arange(-around, width + around, dtype=np.float32) + 0.5 - width / 2)
    y = np.abs(np.arange(-around, height + around, dtype=np.float32) + 0.5 - height / 2)
    across = (x - (width / 2 - radius))[None, :]
    down = (y - (height / 2 - radius))[:, None]
    outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return np.asarray(outside + np.minimum(np.maximum(across, down), 0) - radius, np.float32)


def _mask(coverage: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray((np.clip(coverage, 0, 1) * 255 + 0.5).astype(np.uint8))
