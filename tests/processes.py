"""Commands of the project as processes of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

Process = asyncio.subprocess.Process


@asynccontextmanager
async def running(
    log: Path, environ: Mapping[str, str], *words: str, **settings: str
) -> AsyncIterator[Process]:
    """`python -m` something, whose log is a file."""
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *words),
            cwd=ROOT,
            env={**environ, **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
