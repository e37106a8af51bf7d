import json

import pytest

from engine import controls

OBEYED = "\0\x1b\n\r\x7f\x9b\u200f\u2028\u202e\u2069\udcff"


@pytest.mark.parametrize("character", OBEYED)
def test_what_is_obeyed_is_spelled(character):
    text = f"Ñu{character}[2J"
    assert controls.first(text) == f"U+{ord(character):04X}"
    assert controls.escape(text) == f"Ñu\\u{ord(character):04x}[2J"
    assert controls.escape(text).isprintable()
    assert controls.remove(text) == "Ñu[2J"


@pytest.mark.parametrize("text", ["", "Ñandú Pérez", "李小龍", "می‌خواهم", "👩‍🚀", "[red] \\ {}"])
def test_what_is_read_stays(text):
    assert controls.first(text) == ""
    assert controls.escape(text) == controls.remove(text) == text


@pytest.mark.parametrize("character", OBEYED)
def test_json_means_the_same_afterwards(character):
    record = {f"a{character}": f'"{character}\\'}
    written = controls.escape(json.dumps(record, ensure_ascii=False))
    assert written.isprintable()
    assert json.loads(written) == record
