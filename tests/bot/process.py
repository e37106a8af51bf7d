"""The bot as a process of its own, for tests that look at it from outside.

python -m tests.bot.process SETTINGS: runs `app.run` with the fake engine and the real card until
a signal, then prints the paths that it opened for writing, as JSON. SETTINGS is a JSON object;
"hold" in it makes the engine take that many seconds for a photo.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bot import app
from bot.settings import Settings
from bot.store import add_key
from bot.telegram import logs
from engine.types import Analysis
from tests.bot.fakes import FakeEngine, analysis, face

_CHANGES = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "tempfile.mkstemp"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def watch() -> list[str]:
    """Note every path that Python code opens for writing from now on."""
    written: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES:
            written.append(f"{event} {arguments[0]}")
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):  # opened before, and noted then
                return
            if (isinstance(mode, str) and set(mode) & set("wax+")) or flags & _WRITING:
                written.append(str(path))

    sys.addaudithook(hook)
    return written


class SlowEngine(FakeEngine):
    def __init__(self, hold_s: float) -> None:
        super().__init__(lambda _photo: analysis(face(), face(150.0)))
        self._hold_s = hold_s

    async def analyze(self, photo: bytes, **options: Any) -> Analysis:
        await asyncio.sleep(self._hold_s)
        return await super().analyze(photo, **options)


def main() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the suite runs below nohup
    values = json.loads(sys.argv[1])
    hold_s = values.pop("hold", 0.0)
    folder = Path(values.pop("folder"))
    keys = folder / "template.keys"
    if not keys.exists():  # an operator's work, not the bot's
        add_key(keys)
    written = watch()
    settings = Settings(
        database=folder / "bot.db",
        ids_key=folder / "ids.key",
        template_keys_file=keys,
        **values,
    )
    logs.configure(settings.secrets, "info", sys.stderr)
    asyncio.run(app.run(settings, SlowEngine(hold_s)))
    sys.stdout.write(json.dumps(written))


if __name__ == "__main__":
    main()
