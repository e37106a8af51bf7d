"""The tables of settings in the documents: `python -m tests.settings_tables` writes them anew."""

from collections.abc import Iterable
from pathlib import Path

from bot import settings as bot_settings
from engine.environment import Row
from engine.settings import Settings as EngineSettings

README = Path(__file__).parents[1] / "bot" / "README.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->"


def table(title: str, rows: Iterable[Row]) -> str:
    lines = [f"| {title} | default | what it is |", "|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.name}` | {default} | {row.help.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"


def section() -> str:
    bot = list(bot_settings.table())
    names = {row.name for row in bot}
    engine = [row for row in EngineSettings.rows() if row.name not in names]
    return f"{table('the bot', bot)}\n{table('its engine', engine)}"


def written(text: str) -> str:
    """A document with its section as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{section()}{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text("utf-8")), "utf-8")
