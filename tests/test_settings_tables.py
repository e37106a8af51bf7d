"""The documents list every setting, with its default and what it is."""

from bot.settings import Settings
from engine.settings import Settings as EngineSettings
from tests.settings_tables import END, README, section, written


def test_the_readme_has_the_table_as_the_code_has_it() -> None:
    text = README.read_text("utf-8")
    assert text.count(END) == 1
    assert text == written(text), "python -m tests.settings_tables writes it anew"


def test_the_table_is_complete() -> None:
    for name in {*Settings.model_fields, *EngineSettings.model_fields}:
        assert section().count(f"| `{name.upper()}` |") == 1, name
