"""Threads are set up before anything loads torch, and PTB's durations, as every command does.

The suite's processes use the bundle that is always there, whatever weights a machine has. They keep
compiled bytecode also where a machine says otherwise: each of hundreds would compile torch anew.
"""

import os
import sys

import pytest

from engine import threads

threads.configure()
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("ENGINE_BUNDLE", "celebrities")
os.environ.setdefault("PTB_TIMEDELTA", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for the whole suite; what is asked for by name is sooner done by one."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if whole and not config.option.keyword else 0
