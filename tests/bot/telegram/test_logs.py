"""The log: one line an update, and the token in none of them, whatever goes wrong."""

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from telegram import Update

from bot import app
from bot.sandbox import Fault, FaultKind, Sandbox
from bot.telegram import logs
from engine.errors import InternalError
from engine.settings import Settings
from engine.types import Analysis
from tests.bot import fakes
from tests.bot.fakes import FakeEngine, picture
from tests.bot.logged import logged
from tests.engine import doors, seers

TOKEN = "7000000001:PLANTED-token_that_must_never_be_written"
HIDDEN = ("PLANTED-token_that_must_never_be_written", "planted%2D")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with logged(TOKEN, "webhook-secret") as stream:
        yield stream


def test_secrets_are_taken_out_of_messages_arguments_and_tracebacks(log: io.StringIO) -> None:
    logger = logging.getLogger("bot.test")
    address = f"https://api.telegram.org/bot{TOKEN}/getMe"
    logger.error("asked %s and %s", address, {"url": address.replace(":", "%3A")})
    try:
        try:
            raise ValueError(address)
        except ValueError as cause:
            raise RuntimeError(f"webhook-secret at {address}") from cause
    except RuntimeError:
        logger.exception("failed at %(url)s", {"url": address}, stack_info=True)
    written = log.getvalue()
    assert "Traceback" in written
    assert "RuntimeError: [secret] at https://api.telegram.org/bot[secret]/getMe" in written
    assert "Stack (most recent call last)" in written
    for secret in (*HIDDEN, "webhook-secret"):
        assert secret not in written


def test_a_secret_cannot_come_back_through_a_second_handler(log: io.StringIO) -> None:
    logger = logging.getLogger("bot.test")
    second = io.StringIO()
    handler = logging.StreamHandler(second)
    logger.addHandler(handler)
    logger.propagate = True
    try:
        raise ValueError(TOKEN)
    except ValueError:
        handler.addFilter(logs.Redact([TOKEN]))
        logger.exception("once")
    finally:
        logger.removeHandler(handler)
    for stream in (second, log):
        assert "ValueError: [secret]" in stream.getvalue()


def test_telegrams_objects_are_not_written(log: io.StringIO) -> None:
    raw = {"update_id": 1, "message": None, "callback_query": None}
    logging.getLogger("telegram.ext.Application").critical("bad %s", Update.de_json(raw, None))
    assert "bad Update" in log.getvalue()


async def test_httpx_does_not_log_addresses(log: io.StringIO) -> None:
    async with Sandbox(token=TOKEN) as sandbox, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{sandbox.bot_api_url}{TOKEN}/getMe")).is_success
    assert log.getvalue() == ""


async def test_the_token_is_in_no_line_whatever_goes_wrong(
    tmp_path: Path, log: io.StringIO
) -> None:
    def see(photo: bytes) -> Analysis:
        raise InternalError(f"the engine broke at http://127.0.0.1/bot{TOKEN}/getFile")

    engine = FakeEngine(see)
    faults = [
        Fault(FaultKind.RESET, method="getUpdates"),
        Fault(FaultKind.SERVER_ERROR, method="getUpdates"),
        Fault(FaultKind.SERVER_ERROR, method="setMyCommands", count=9),
        Fault(FaultKind.RESET, method="sendMessage"),
        Fault(FaultKind.TOO_MANY_REQUESTS, method="sendMessage"),
        Fault(FaultKind.SERVER_ERROR, method="sendChatAction", count=2),
    ]
    async with Sandbox(token=TOKEN) as sandbox:
        chosen = fakes.settings(sandbox, tmp_path, stop_timeout_s=3)
        for fault in faults:
            sandbox.faults.add(fault)
        async with app.running(chosen, engine, draw=fakes.draw):
            ana = sandbox.person("ana")
            await ana.send_photo(picture())
            await ana.reply()
            sandbox.faults.add(Fault(FaultKind.TRUNCATED_DOWNLOAD, count=9, method="download"))
            await ana.send_photo(picture(1))
            await ana.reply()
    written = log.getvalue()
    assert "Traceback" in written
    assert "the engine broke" in written
    assert "retry endpoint=sendMessage" in written
    assert "[secret]" in written
    for secret in HIDDEN:
        assert secret not in written


async def test_an_update_is_one_line_with_its_milliseconds(
    tmp_path: Path, log: io.StringIO
) -> None:
    async with fakes.bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        sent = await ana.send_photo(picture(), caption="my secret caption")
        answer = await ana.reply()
        await ana.press(answer, answer.buttons[-1][-1])
    lines = [line for line in log.getvalue().splitlines() if "outcome=" in line]
    assert len(lines) == 2
    fields = dict(part.split("=", 1) for part in lines[0].split() if "=" in part)
    assert fields["kind"] == "photo"
    assert fields["outcome"] == "answered"
    for stage in ("download", "queue", "engine", "card", "send", "total"):
        assert float(fields[f"{stage}_ms"]) >= 0
    assert " kind=callback " in lines[1]
    written = log.getvalue()
    for private in ("secret caption", str(sent.raw["from"]["id"]), "Ana", "Lovelace"):
        assert private not in written


async def test_one_id_runs_from_the_update_to_the_engines_service(
    tmp_path: Path, log: io.StringIO
) -> None:
    seer = seers.seer()
    seer.fault = ValueError("planted")
    async with (
        doors.over_tcp(Settings(), lambda _: seer, tmp_path) as engine,
        Sandbox(token=TOKEN) as sandbox,
        app.running(fakes.settings(sandbox, tmp_path), engine, draw=fakes.draw),
    ):
        await sandbox.person("ana").send_photo(picture())
        answer = await sandbox.person("ana").reply()
    ids = {
        what: re.findall(rf"request=(\w+) {what}", log.getvalue())
        for what in ("error=", "Computing failed", "path=/v1/analyze", "update=[0-9]+ kind=photo")
    }
    (made,) = set().union(*ids.values())
    assert all(ids.values())
    assert len(made) == 32
    assert made[:8] in (answer.text or "")
