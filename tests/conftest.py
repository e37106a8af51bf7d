"""Threads are set up before anything loads torch, and PTB's durations, as every command does.

The suite's processes use the bundle that is always there, whatever weights a machine has. They keep
compiled bytecode also where a machine says otherwise: each of hundreds would compile torch anew.
And they trust no authority: no test speaks TLS, and reading all of them takes each of thousands of
HTTP clients 30 ms of processor time. Examples are the same in every run, so that a change fails for
what it changed; `--whole` draws others each time.
"""

import gc
import os
import sys
from collections.abc import Callable

import pytest
from hypothesis import settings

from engine import threads

threads.configure()
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull
os.environ.setdefault("ENGINE_BUNDLE", "celebrities")
os.environ.setdefault("PTB_TIMEDELTA", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three for the whole suite; what is asked for by name is sooner done by one.

    A third of a test's time is waiting, so that three keep two cores busy.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 3 if whole and not config.option.keyword else 0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole",
        action="store_true",
        help="try every case of the long matrices that the suite samples; takes hours",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before modules are collected, whose settings start from these."""
    settings.register_profile("suite", derandomize=not config.getoption("whole"))
    settings.load_profile("suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A whole matrix takes as long as it takes."""
    if config.getoption("whole"):
        for item in items:
            if "one_in" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(0))


def pytest_collection_finish() -> None:
    """The garbage collector passes over a million objects of modules and tests no more."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def one_in(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """`one_in(29)` is the step through a matrix of which the suite tries every 29th case.

    With `--whole` it is 1.
    """
    whole = bool(pytestconfig.getoption("whole"))
    return lambda sampled: 1 if whole else sampled
