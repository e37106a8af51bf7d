"""`python -m bot` that tells, when it gets SIGUSR1, how much of the machine it holds.

    CHAOS_SAMPLES=samples.jsonl python -m tests.chaos.watched run

appends a line of JSON to the file each time. Changes nothing of the bot.
"""

import asyncio
import gc
import json
import os
import runpy
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil


def sample() -> dict[str, Any]:
    """Resident memory in bytes; numbers of threads, open files, objects and tasks, by name."""
    gc.collect()
    try:
        tasks = asyncio.all_tasks(asyncio.get_running_loop())
    except RuntimeError:
        tasks = set()
    names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    return {
        "rss_bytes": psutil.Process().memory_info().rss,
        "threads": threading.active_count(),
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "objects": len(gc.get_objects()),
        "tasks": len(tasks),
        "tasks_by_name": dict(sorted(names.items())),
    }


def main() -> None:
    place = Path(os.environ["CHAOS_SAMPLES"])

    def write(_number: int, _frame: object) -> None:
        with place.open("a") as file:
            file.write(json.dumps(sample()) + "\n")

    signal.signal(signal.SIGUSR1, write)
    sys.argv[0] = "bot"
    runpy.run_module("bot", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
