"""An hour of the real bot in the sandbox, with faults drawn by chance; exit code 1 if it erred.

    uv run python -m tests.benchmarks.chaos --seed 1 --minutes 60 [--mode polling|webhook]

Six people write, the bot runs as a process of its own, and Telegram, the engine, the database, the
clock and the processes fail as a plan has it that the seed draws. The summary comes out as JSON;
plan, logs and samples are in the folder that is named at the beginning. With PostgreSQL instead of
SQLite: `uv run python -m tests.postgres uv run python -m tests.benchmarks.chaos ...`
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from tests.chaos.plan import Pace
from tests.chaos.scene import Result, entered


async def _run(folder: Path, pace: Pace, seed: int, mode: Literal["polling", "webhook"]) -> Result:
    server = os.environ.get("TEST_POSTGRES_URL")
    async with entered(folder, pace, seed=seed, mode=mode, server=server) as scene:
        return await scene.play()


def main(
    seed: Annotated[int, typer.Option(help="Draws the plan.")] = 1,
    minutes: Annotated[float, typer.Option(help="Of the plan; calm moments come on top.")] = 60.0,
    mode: Annotated[
        Literal["polling", "webhook"], typer.Option(help="How updates come.")
    ] = "polling",
    folder: Annotated[Path | None, typer.Option(help="For plan and logs; a new one.")] = None,
) -> None:
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="face-matcher-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"plan, logs and samples: {folder}", file=sys.stderr)
    result = asyncio.run(_run(folder.absolute(), Pace(60 * minutes), seed, mode))
    print(json.dumps(result.summary, indent=1))
    raise SystemExit(1 if result.violations else 0)


if __name__ == "__main__":
    typer.run(main)
