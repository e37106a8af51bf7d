"""Text on a picture: which font draws it, how wide it is, where it breaks.

Inter (SIL Open Font License, from the package fontpkg-inter) draws Latin, Greek and Cyrillic. What
Inter has no glyph for is drawn with the first font that has one: any other installed fontpkg
family, then the machine's own fonts, Noto first. A character that no font of the machine knows
becomes an empty square; installing a font mends it (Debian: fonts-noto-core, fonts-noto-cjk).

Knows nothing about cards, colours or languages. It breaks lines at spaces and, in a word wider
than a line, between characters; it neither hyphenates nor sets text vertically.
"""

import functools
import importlib.metadata
import importlib.util
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import ImageDraw, ImageFont

LINE_HEIGHT = 1.22
"""Distance from one line to the next, in font sizes."""

BASELINE = 0.95
"""Where letters stand below the top of their line, in font sizes; by Inter's metrics."""

_LONGEST = 160  # characters of a text that are looked at; nobody's name is longer
_ELLIPSIS = "…"
_MISSING = "□"  # plainer than Inter's own mark for a glyph it lacks
_UNKNOWN = "\U0010ffff"  # a noncharacter: no font has a glyph for it
_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_SYSTEM_FONTS = tuple(
    re.compile(pattern + r"\.(ttf|otf|ttc)", re.IGNORECASE)
    for pattern in (
        r"NotoSans(-Regular|\[[\w,]+\])",
        r"NotoSansCJK(\w\w)?(-Regular|-VF)",
        r"NotoSans\w+(-Regular|\[[\w,]+\])",
        r"DejaVuSans",
        r"(PingFang|Hiragino Sans GB|AppleSDGothicNeo|Arial ?Unicode( MS)?)",
        r"(segoeui|msyh|meiryo|malgun|Nirmala|LeelawUI)",
        r"(wqy-\w+|DroidSansFallback\w*|FreeSans|unifont)",
    )
)


@dataclass(frozen=True, slots=True)
class Style:
    """How letters look.

    Attributes:
        size_px: font size in pixels.
        weight: 100 (thin) to 900 (black); 400 is regular.
    """

    size_px: int
    weight: int = 400

    @property
    def line_height_px(self) -> int:
        """Height of a line of text in pixels."""
        return round(self.size_px * LINE_HEIGHT)


def clean(text: str) -> str:
    """One line of drawable text from a name that anybody may have typed.

    Control characters, direction overrides and lone surrogates go; runs of white space become one
    space; accents are composed with their letters where Unicode can; 160 characters are kept.
    """
    kept = (
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFC", text[: 4 * _LONGEST])
        if character.isspace()
        or character in "\u200c\u200d"  # joiners shape Persian and Indic names
        or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
    )
    return " ".join("".join(kept).split())[:_LONGEST]


def drawable(text: str) -> bool:
    """Whether there is something to draw and this machine's fonts know all of it."""
    return bool(text) and all(_font_for(character) for character in text)


@functools.lru_cache(maxsize=4096)
def measure(text: str, style: Style) -> float:
    """Width of one line of text in pixels, as the pen moves."""
    return sum(font.getlength(run) for run, font in _runs(text, style))


def write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, style: Style, ink: str) -> None:
    """Draw one line of text.

    Args:
        draw: where.
        x: left end of the text in pixels.
        y: top of the line in pixels.
        text: without line breaks.
        style: how.
        ink: a colour that Pillow understands.
    """
    for run, font in _runs(text, style):
        draw.text((x, y + round(style.size_px * BASELINE)), run, ink, font, anchor="ls")
        x += font.getlength(run)


def fit(
    text: str, style: Style, *, width_px: float, lines: int = 1, smallest_px: int | None = None
) -> tuple[tuple[str, ...], Style]:
    """Break a text into lines that fit, smaller where it must be, cut where nothing else helps.

    Args:
        text: without line breaks. A no-break space does not break.
        style: the style wanted.
        width_px: no line is wider, as long as one character and an ellipsis fit.
        lines: no more lines than this, at least 1.
        smallest_px: how small the letters may become; None keeps the style's size.

    Returns:
        The lines, at least one, and the style in which they fit.
    """
    smallest = replace(style, size_px=min(style.size_px, smallest_px or style.size_px))
    for size_px in range(style.size_px, smallest.size_px, -4):
        tried = replace(style, size_px=size_px)
        broken = _wrap(text, tried, width_px)
        if len(broken) <= lines and _fits(broken, tried, width_px):
            return tuple(_balanced(broken, tried, width_px)), tried
    whole = _wrap(text, smallest, width_px)
    broken = [piece for line in whole for piece in _chop(line, smallest, width_px)]
    if len(broken) > lines:
        rest = " ".join(broken[lines - 1 :])
        broken = [*broken[: lines - 1], _shorten(rest, smallest, width_px)]
    elif _fits(whole, smallest, width_px):
        broken = _balanced(whole, smallest, width_px)
    return tuple(broken), smallest


def _fits(lines: list[str], style: Style, width_px: float) -> bool:
    return all(measure(line, style) <= width_px for line in lines)


def _balanced(lines: list[str], style: Style, width_px: float) -> list[str]:
    """The same number of lines, as equally long as breaking at spaces allows."""
    if len(lines) == 1:
        return lines
    text = " ".join(lines)
    low, high, best = 0.0, width_px, lines
    while high - low > style.size_px / 4:
        middle = (low + high) / 2
        tried = _wrap(text, style, middle)
        if len(tried) <= len(lines) and _fits(tried, style, middle):
            high, best = middle, tried
        else:
            low = middle
    return best


def _wrap(text: str, style: Style, width_px: float) -> list[str]:
    """Lines broken at spaces; a word that is too wide stands alone on its line."""
    words = text.split(" ")
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if measure(longer, style) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _chop(line: str, style: Style, width_px: float) -> list[str]:
    """The line in pieces that fit, cut between characters where it does not fit whole."""
    pieces = [""]
    if measure(line, style) <= width_px:
        return [line]
    for cluster in _clusters(line):
        if measure(cluster, style) > width_px:
            cluster = _ELLIPSIS  # a ligature as wide as a sentence
        if pieces[-1] and measure(pieces[-1] + cluster, style) > width_px:
            pieces.append("")
        pieces[-1] += cluster
    return pieces


def _shorten(text: str, style: Style, width_px: float) -> str:
    """The text's beginning with an ellipsis, as long as fits."""
    kept = ""
    for cluster in _clusters(text):
        if measure(kept + cluster + _ELLIPSIS, style) > width_px:
            break
        kept += cluster
    return kept.rstrip(" ,.·-") + _ELLIPSIS


def _clusters(text: str) -> Iterator[str]:
    """Characters with the marks that sit on them."""
    cluster = ""
    for character in text:
        if cluster and not _leans(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _leans(character: str) -> bool:
    return unicodedata.category(character) in {"Mn", "Mc", "Me", "Cf"}


Run = tuple[str, ImageFont.FreeTypeFont]


def _runs(text: str, style: Style) -> list[Run]:
    """Stretches of the text with the font that draws each, in the order they stand on paper."""
    needed = [character for character in text if not (character.isspace() or _leans(character))]
    paths: list[tuple[str, Path]] = []
    whole = _font_for("".join(dict.fromkeys(needed)))
    if whole is not None:
        return [(text, _font(whole, style))]
    for cluster in _clusters(text):
        stays = bool(paths) and cluster.isspace()
        path = paths[-1][1] if stays else _font_for(cluster[0])
        if path is None:
            cluster, path = _MISSING, _inter()
        if paths and paths[-1][1] == path:
            paths[-1] = (paths[-1][0] + cluster, path)
        else:
            paths.append((cluster, path))
    if _right_to_left(text):
        paths.reverse()
    return [(run, _font(path, style)) for run, path in paths]


def _right_to_left(text: str) -> bool:
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in {"L", "R", "AL"}:
            return direction != "L"
    return False


@functools.lru_cache(maxsize=4096)
def _font_for(characters: str) -> Path | None:
    """The first font with a glyph for each of the characters."""
    if all(_knows(_inter(), character) for character in characters):
        return _inter()
    return next(
        (path for path in _fallbacks() if all(_knows(path, character) for character in characters)),
        None,
    )


@functools.lru_cache(maxsize=4096)
def _knows(path: Path, character: str) -> bool:
    """Whether a font has a glyph: it draws what it has none for as it draws a noncharacter."""
    if character.isspace():
        return True
    font = _probe(path)
    return bytes(font.getmask(character)) != bytes(font.getmask(_UNKNOWN))


@functools.lru_cache(maxsize=32)
def _probe(path: Path) -> ImageFont.FreeTypeFont:
    # The basic layout asks the font alone; the other would put marks on dotted circles.
    return ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=128)
def _font(path: Path, style: Style) -> ImageFont.FreeTypeFont:
    if style.weight >= 600:
        bold = path.with_name(path.name.replace("-Regular", "-Bold"))
        path = bold if bold.exists() else path
    font = ImageFont.truetype(path, style.size_px)
    try:
        axes = font.get_variation_axes()
    except OSError:  # a font of one weight
        return font
    # Optical size: a phone shows the picture at about a third, so small text is cut as such.
    wanted = {"weight": style.weight, "optical size": style.size_px / 2}
    font.set_variation_by_axes(
        [
            min(
                max(
                    wanted.get(_axis_name(axis["name"]), axis["default"] or 0), axis["minimum"] or 0
                ),
                axis["maximum"] or 0,
            )
            for axis in axes
        ]
    )
    return font


def _axis_name(name: bytes | None) -> str:
    return (name or b"").decode("ascii", "replace").lower()


@functools.cache
def _inter() -> Path:
    return _family_files("fontpkg_inter")[0]


@functools.cache
def _fallbacks() -> tuple[Path, ...]:
    """The other fonts of this machine, best first; looked for once, when first needed."""
    packaged = [
        path
        for entry in sorted(
            importlib.metadata.entry_points(group="fontpkg.family"),
            key=lambda entry: (not entry.name.startswith("noto-sans"), entry.name),
        )
        for path in _family_files(entry.value)
    ]
    found = sorted(
        path
        for folder in _FOLDERS
        for path in Path(folder).expanduser().rglob("*.[tToO][tT][fFcC]")
    )
    system = [path for pattern in _SYSTEM_FONTS for path in found if pattern.fullmatch(path.name)]
    return tuple(dict.fromkeys([*packaged, *system]))


def _family_files(package: str) -> list[Path]:
    """Upright fonts of a fontpkg package; its code is not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    files = (Path(spec.origin).parent / "files").glob("*.[ot]tf")
    upright = [path for path in files if "Italic" not in path.name]
    # A family of static files: Regular comes first, its Bold is found by name.
    return sorted(upright, key=lambda path: ("Regular" not in path.name, path.name))[:1]
