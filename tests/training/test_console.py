"""What a command says while it works."""

import json

import pytest
import typer

from training.console import emit, failures, progress, say


class Clock:
    """Seconds that only move when they are told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def told(clock, capsys, total, steps):
    """What is said while so many items are done at such seconds."""
    said = []
    with progress("Embedding faces", total, clock) as advance:
        for passed_s, done in steps:
            clock.now_s = 100.0 + passed_s
            advance(done)
            said.append(capsys.readouterr().err.strip())
    return said


def test_without_a_terminal_there_is_a_line_every_ten_seconds(clock, capsys):
    steps = [(1, 10), (9.9, 99), (10, 1200), (11, 1300), (19.9, 2000), (20.5, 2100), (55, 5000)]
    said = told(clock, capsys, 5000, steps)
    line = "Embedding faces: {} of 5,000"
    assert said == [
        "",
        "",
        line.format("1,200"),
        "",
        "",
        line.format("2,100"),
        line.format("5,000"),
    ]


NASTY, SPELLED = "\x1b[2J\x9b\u202e[red]\nx", r"\u001b[2J\u009b\u202e[red]\u000ax"


def test_control_characters_are_spelled(capsys):
    say(f"Wrote {NASTY}.")
    with pytest.raises(typer.Exit), failures():
        raise ValueError(f"{NASTY} is no folder.")
    emit({"path": NASTY})
    said = capsys.readouterr()
    assert said.err == f"Wrote {SPELLED}.\nerror: {SPELLED} is no folder.\n"
    assert all(line.isprintable() for line in said.out.split("\n"))
    assert json.loads(said.out) == {"path": NASTY}


def test_quick_work_says_nothing(clock, capsys):
    assert told(clock, capsys, 3, [(0, 1), (1, 2), (2, 3)]) == ["", "", ""]


def test_of_how_many_is_left_out_where_nobody_knows(clock, capsys):
    assert told(clock, capsys, None, [(30, 7)]) == ["Embedding faces: 7"]
