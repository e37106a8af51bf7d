"""Photos in, cards and refusals out, through real HTTP and python-telegram-bot unmodified."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from bot.lookalike import captions
from bot.lookalike.face_choice import LeftOut
from bot.sandbox import Fault, FaultKind
from bot.telegram.incoming import Reason, Refusal
from bot.texts import say
from engine import errors
from engine.types import Analysis, Match, Verdict
from tests.bot import clock, fakes
from tests.bot.fakes import (
    FakeEngine,
    analysis,
    bot,
    draw,
    face,
    face_of,
    matches,
    picture,
    until_met,
)


def refusing(error: Exception) -> FakeEngine:
    def see(_photo: bytes) -> Analysis:
        raise error

    return FakeEngine(see)


async def test_a_photo_is_answered_with_a_card_in_the_persons_language(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("es-AR")
        sent = await ana.send_photo(picture())
        answer = await ana.reply()
        assert answer.photo
        assert answer.reply_to == sent.message_id
        assert answer.text.splitlines()[0] == say("es", "lookalike.strong", name=fakes.NAMES[0])
        # 97.3 % of strangers are less alike: 2.7 % are as much, at most one of 37.
        assert answer.text.splitlines()[1] == say("es", "figures.strength_rare", count=30) + "."
        ben = sandbox.person("ben")
        await ben.set_language("en")
        await ben.send_document(picture(1, form="PNG"), name="me.png", mime_type="image/png")
        assert (await ben.reply()).text.startswith("What an amazing resemblance to Ada Lovelace!")


async def test_a_photo_in_reply_to_the_bot_is_answered(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.send_text("/start")
        greeting = await ana.reply()
        sent = await ana.send_photo(picture(), reply_to=greeting)
        assert (await ana.reply()).reply_to == sent.message_id


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("language", ["es", "en"])
async def test_words_follow_the_verdict(tmp_path: Path, verdict: Verdict, language: str) -> None:
    found = matches(verdict)
    engine = FakeEngine(lambda _photo: analysis(face(found=found)))
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(language)
        await ana.send_photo(picture())
        answer = await ana.reply()
        first = answer.text.splitlines()[0]
        assert first == say(language, f"lookalike.{verdict.value}", name=found[0].name)
        assert found[0].name in first
        # The next ones are named whatever the verdict is.
        assert found[1].name in answer.text
        assert found[2].name in answer.text
        # How rare it is, only where that impresses.
        rare = say(language, "figures.strength_rare", count=30)
        assert (rare in answer.text) == (verdict in (Verdict.STRONG, Verdict.GOOD))
        doubt = say(language, "figures.strength_is")
        assert (doubt in answer.text) == (verdict is Verdict.IS)


NOBODY = {
    "es": ("nadie", "ningún parecido", "sin parecido"),
    "en": ("nobody", "no one", "no clear"),
}


@pytest.mark.parametrize("language", ["es", "en"])
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("percentile", [0.0, 50.0, 61.0, 99.99])
def test_whoever_has_a_face_is_told_somebody(
    language: str, verdict: Verdict, percentile: float
) -> None:
    seen = face(found=matches(verdict, percentile))
    for text in (
        captions.one(seen, language),
        captions.brief(seen, language),
        captions.longer(seen, 570, language),
    ):
        assert fakes.NAMES[0] in text
        assert not any(word in text.lower() for word in NOBODY[language])


def test_a_likeness_that_two_of_five_have_is_told_without_figures() -> None:
    text = captions.one(face(found=matches(Verdict.GOOD, 60.0)), "en")
    assert text.splitlines()[1] == say("en", "figures.strength_better") + "."
    assert not any(character.isdecimal() for character in text)


@pytest.mark.parametrize("language", ["es", "en"])
@pytest.mark.parametrize("verdict", Verdict)
def test_nobody_is_asked_who_they_are(language: str, verdict: Verdict) -> None:
    """A photo may show anybody, and a likeness is no identity."""
    seen = face(found=matches(verdict))
    said = captions.one(seen, language) + captions.brief(seen, language)
    assert not any(word in said for word in ("Eres", "eres", "Are you", "coincide", "matches"))


@pytest.mark.parametrize("language", ["es", "en"])
def test_a_list_tells_how_the_likeness_is_shared(language: str) -> None:
    lines = captions.longer(face(), 570, language).replace("\u00a0", " ").splitlines()
    percent = {"es": " %", "en": "%"}[language]
    assert lines[0] == say(language, "figures.shared", count=570) + ":"
    assert lines[1] == f"1. Ada Lovelace · 50{percent}"
    assert lines[5] == f"5. Rosa Parks · 3{percent}"
    rest = say(language, "figures.rest", count=565)
    assert lines[6:] == [f"{rest} · 3{percent}"]
    unknown = captions.longer(face(), None, language).splitlines()
    assert unknown[0] == say(language, "figures.shared_all") + ":"
    all_of_them = captions.longer(face(), len(fakes.NAMES), language)
    assert len(all_of_them.splitlines()) == 6
    assert say(language, "figures.rest_all") not in all_of_them
    assert unknown[6].startswith(say(language, "figures.rest_all"))


@pytest.mark.parametrize(("language", "least"), [("es", "menos de 1 %"), ("en", "less than 1%")])
def test_a_list_tells_least_shares_in_words(language: str, least: str) -> None:
    found = (
        Match("Ada", 0.9, 0.5, 97.0, Verdict.STRONG),
        Match("Eva", 0.004, 0.4, 50.0, Verdict.SOME),
    )
    lines = captions.longer(face(found=found), 570, language).replace("\u00a0", " ").splitlines()
    assert lines[2] == f"2. Eva · {least}"
    assert not any(sign in "".join(lines) for sign in "<>")


def test_a_list_that_is_too_long_counts_the_rest_among_the_others() -> None:
    many = tuple(Match(f"{n} {'x' * 60}", 0.01, 0.5, 50.0, Verdict.SOME) for n in range(50))
    text = captions.longer(face(found=many), 570, "en")
    assert len(text) <= captions.CAPTION_MAX
    heading, *listed, last = text.splitlines()
    assert heading == say("en", "figures.shared", count=570) + ":"
    assert all(line.endswith(" · 1%") for line in listed)
    assert last == f"The other {570 - len(listed)} together · {100 - len(listed)}%"


def test_a_name_that_ends_in_a_full_stop_ends_the_sentence() -> None:
    found = tuple(
        Match(name, 0.5, 0.5, 50.0, Verdict.SOME) for name in ("Ana", "Ben", "Robert Downey Jr.")
    )
    text = captions.one(face(found=found), "en")
    assert text.endswith("Robert Downey Jr.")
    assert ".." not in text
    for verdict in Verdict:
        junior = (Match("Robert Downey Jr.", 0.5, 0.5, 50.0, verdict),)
        for language in ("es", "en"):
            assert ".." not in captions.one(face(found=junior), language)


ENGINE_FAULTS = [
    (errors.UnsupportedFormat("x"), say("en", "refusal.unsupported_format")),
    (errors.BrokenImage("x"), say("en", "refusal.broken_file")),
    (errors.TooManyPixels("x"), say("en", "refusal.too_many_pixels")),
    (errors.ImageTooDemanding("x"), say("en", "refusal.too_demanding")),
    (errors.FileTooLarge("x"), say("en", "refusal.too_large", megabytes=20)),
    (errors.Busy("x", retry_after_s=6.2), say("en", "refusal.busy", count=7)),
    (errors.Busy("x", retry_after_s=0.2), say("en", "refusal.busy", count=1)),
    (errors.Unavailable("x"), say("en", "refusal.engine_down")),
    (errors.Unauthorized("x"), say("en", "refusal.misconfigured")),
    (errors.NotFound("x"), say("en", "refusal.engine_down")),
    (errors.DeadlineExceeded("x"), say("en", "refusal.deadline")),
]


@pytest.mark.parametrize(("error", "sentence"), ENGINE_FAULTS)
async def test_a_fault_of_the_engine_is_said_in_words(
    tmp_path: Path, error: errors.EngineError, sentence: str
) -> None:
    async with bot(tmp_path, refusing(error)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        assert (await ana.reply()).text == sentence


@pytest.mark.parametrize("error", [errors.InternalError("secret?"), ZeroDivisionError("secret?")])
async def test_a_bug_is_told_by_its_number_alone(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with bot(tmp_path, refusing(error)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        text = (await ana.reply()).text
        assert "secret?" not in text
        code = text.split("code ")[1].split(".")[0]
        assert len(code) == 8
        (logged,) = (record for record in caplog.records if code in record.getMessage())
        assert logged.exc_info


UNUSABLE = [
    (analysis(), Refusal(Reason.NO_FACE)),
    (analysis(face(size_px=20), face(size_px=39)), Refusal(Reason.TOO_SMALL, {"pixels": 40})),
    (analysis(face(blur=0.9)), Refusal(Reason.BLURRED)),
]


async def test_refusals_reach_the_person(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        for seen, refusal in UNUSABLE:
            engine.see = lambda _photo, seen=seen: seen  # type: ignore[misc]
            await ana.send_photo(picture())
            sentence = say("en", f"refusal.{refusal.reason.value}", **refusal.values)
            assert (await ana.reply()).text == sentence


async def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_document(b"%PDF-1.7", name="me.pdf", mime_type="application/pdf")
        assert (await ana.reply()).text == say("en", "refusal.not_an_image")
        assert engine.waiting == 0
        await ana.send_document(b"not a jpeg", name="me.jpg", mime_type="image/jpeg")
        assert (await ana.reply()).text == say("en", "refusal.not_an_image")
        await ana.send_document(picture()[:-300], name="me.jpg", mime_type="image/jpeg")
        assert (await ana.reply()).text == say("en", "refusal.broken_file")


async def test_a_file_too_large_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        sandbox.faults.add(Fault(FaultKind.SERVER_ERROR, method="getFile", count=100))
        large = bytes(20 * 2**20 + 1)
        await ana.send_document(large, name="me.png", mime_type="image/png")
        assert (await ana.reply()).text == say("en", "refusal.too_large", megabytes=20)
        assert sandbox.faults.pending()[0].count == 100


async def test_several_faces_have_buttons_that_show_each(tmp_path: Path) -> None:
    people = [matches(verdict) for verdict in (Verdict.IS, Verdict.SOME, Verdict.FAINT)]
    faces = [face(90.0 * place, found=found) for place, found in enumerate(people)]
    async with bot(tmp_path, FakeEngine(lambda _photo: analysis(*faces))) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        whole = await ana.reply()
        assert whole.text.startswith("I see 3 faces:")
        assert face_of(await ana.download(whole)) is None
        await ana.press(whole, "2")
        second = await ana.edited(whole)
        assert second.text.startswith("There's a touch of Ada Lovelace here.")
        assert face_of(await ana.download(second)) == 1
        await ana.press(second, "More matches")
        longer = await ana.edited(second)
        assert all(name in longer.text for name in fakes.NAMES)
        await ana.press(longer, "Back")
        back = await ana.edited(longer)
        assert back.text == second.text
        await ana.press(back, "All faces")
        again = await ana.edited(back)
        assert again.text == whole.text
        assert face_of(await ana.download(again)) is None


async def test_a_crowd_shows_the_largest_twelve_and_says_so(tmp_path: Path) -> None:
    crowd = analysis(*(face(20.0 * place, size_px=90 - place) for place in range(15)))
    async with bot(tmp_path, FakeEngine(lambda _photo: crowd)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        answer = await ana.reply()
        assert answer.text.startswith("I see 15 faces:\n1. ")
        assert answer.text.splitlines()[12].startswith("12. ")
        assert answer.text.endswith("\nThese are the largest; 3 more are not shown.")
        numbers = [[one.text for one in row] for row in answer.buttons[:-1]]
        assert numbers == [[str(n) for n in range(1, 7)], [str(n) for n in range(7, 13)]]


async def test_numbers_run_from_left_to_right(tmp_path: Path) -> None:
    left, middle, right = (
        face(x, size_px=size_px, found=(replace(matches()[0], name=name),))
        for x, size_px, name in ((0.0, 60, "Left"), (100.0, 90, "Middle"), (200.0, 75, "Right"))
    )
    seen = analysis(middle, right, left)  # the largest first
    async with bot(tmp_path, FakeEngine(lambda _photo: seen)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        whole = await ana.reply()
        named = [line.split(" to ")[1] for line in whole.text.splitlines()[1:]]
        assert named == ["Left", "Middle", "Right"]
        await ana.press(whole, "3")
        third = await ana.edited(whole)
        assert "Right" in third.text
        assert face_of(await ana.download(third)) == 2


SPECTATOR = face(0, size_px=60, blur=0.73)


@pytest.mark.parametrize(
    ("language", "count", "said"),
    [
        ("en", 1, "And 1 more face, too small or too blurred to tell."),
        ("en", 3, "And 3 more faces, too small or too blurred to tell."),
        ("es", 1, "Y 1 cara más, demasiado pequeña o borrosa para saber a quién se parece."),
        ("es", 3, "Y 3 caras más, demasiado pequeñas o borrosas para saber a quién se parecen."),
    ],
)
async def test_faces_that_are_left_out_are_told(
    tmp_path: Path, language: str, count: int, said: str
) -> None:
    seen = analysis(face(100), *[SPECTATOR] * count)
    async with bot(tmp_path, FakeEngine(lambda _photo: seen)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language(language)
        await ana.send_photo(picture())
        answer = await ana.reply()
        strong = say(language, "lookalike.strong", name=fakes.NAMES[0])
        assert answer.text.startswith(strong)
        assert answer.text.endswith(f"\n{said}")
        await ana.send_album([picture(1), picture(2)])
        first, _ = await ana.replies(2)
        assert all(line.endswith(f". {said}") for line in first.text.splitlines())


@pytest.mark.parametrize("language", ["es", "en"])
def test_what_is_left_out_is_told_however_long_the_names_are(language: str) -> None:
    long = (Match("x" * 100, 0.9, 0.5, 97.0, Verdict.STRONG),)
    faces = [face(found=long) for _ in range(12)]
    text = captions.whole(analysis(*faces), LeftOut(smaller=1, unclear=2), language)
    assert len(text) <= captions.CAPTION_MAX
    assert text.endswith(
        f"\n{say(language, 'lookalike.smaller', count=1)}"
        f"\n{say(language, 'lookalike.unclear', count=2)}"
    )


async def test_more_matches_and_delete(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        answer = await ana.reply()
        assert fakes.NAMES[4] not in answer.text
        await ana.press(answer, "More matches")
        longer = await ana.edited(answer)
        assert "5. Rosa Parks · 3%" in longer.text
        # The engine has told that it knows these five only: there are no others.
        assert longer.text.startswith(say("en", "figures.shared", count=5))
        assert "other" not in longer.text
        said = await ana.press(longer, "Delete")
        assert said.text == say("en", "toast.deleted")
        await ana.deleted(answer)


async def test_buttons_expire_and_say_so(tmp_path: Path) -> None:
    async with bot(tmp_path, buttons_minutes=0.0001) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        answer = await ana.reply()
        said = await ana.press(answer, "Delete")
        assert said.text == say("en", "toast.expired")
        assert (await ana.edited(answer)).buttons == ()


async def test_a_button_of_another_person_does_nothing(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox, httpx.AsyncClient(trust_env=False) as client:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ben.set_language("en")
        await ana.send_photo(picture())
        await ben.send_photo(picture(1))
        anas, bens = await ana.reply(), await ben.reply()
        stolen = anas.buttons[-1][-1]
        assert stolen.data is not None
        keyboard = {"inline_keyboard": [[{"text": "Delete", "callback_data": stolen.data}]]}
        answer = await client.post(
            f"{sandbox.bot_api_url}{sandbox.token}/editMessageReplyMarkup",
            data={
                "chat_id": bens.raw["chat"]["id"],
                "message_id": bens.message_id,
                "reply_markup": json.dumps(keyboard),
            },
        )
        assert answer.is_success
        changed = await ben.edited(bens)
        said = await ben.press(changed, "Delete")
        assert said.text == say("en", "toast.not_yours")
        assert {anas.message_id} <= {one.message_id for one in await ana.messages()}
        assert {bens.message_id} <= {one.message_id for one in await ben.messages()}


async def test_a_bug_with_one_photo_of_an_album_does_not_lose_the_others(tmp_path: Path) -> None:
    looks = iter([analysis(face()), None, analysis(face())])

    def see(_photo: bytes) -> Analysis:
        found = next(looks)
        if found is None:
            raise errors.InternalError("a bug")
        return found

    async with bot(tmp_path, FakeEngine(see)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_album([picture(seed) for seed in range(3)])
        first, second, words = await ana.replies(3)
        assert first.photo
        assert second.photo
        assert words.text == f"Photo 2: {say('en', 'refusal.internal')}"


async def test_callback_data_says_nothing_and_fits(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        ana = sandbox.person("ana")
        sent = await ana.send_photo(picture())
        owner = str(sent.raw["from"]["id"])
        answer = await ana.reply()
        for row in answer.buttons:
            for one in row:
                assert one.data is not None
                assert len(one.data.encode()) <= 64
                assert owner not in one.data


async def test_an_album_is_answered_once_with_a_card_for_each_photo(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with bot(tmp_path, engine) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_album([picture(seed) for seed in range(10)])
        cards = await ana.replies(10)
        assert len({card.group_id for card in cards}) == 1
        assert all(card.photo for card in cards)
        assert cards[0].text.splitlines()[9].startswith("Photo 10: ")
        assert texts_of(cards[1:]) == [""] * 9
        assert engine.served == 10
        # An album is one request: the lane is free for the next one.
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


def texts_of(messages: tuple[object, ...]) -> list[str]:
    return fakes.texts(messages)


async def test_refused_photos_of_an_album_are_named(tmp_path: Path) -> None:
    bad = picture(1)
    seen: list[bytes] = []

    def see(photo: bytes) -> Analysis:
        seen.append(photo)
        return analysis() if len(seen) == 2 else analysis(face())

    async with bot(tmp_path, FakeEngine(see)) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_album([picture(0), bad, picture(2)])
        *cards, refused = await ana.replies(3)
        assert [bool(card.photo) for card in cards] == [True, True]
        assert refused.text == f"Photo 2: {say('en', 'refusal.no_face')}"


async def test_an_album_with_one_usable_photo_has_buttons(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def see(photo: bytes) -> Analysis:
        seen.append(photo)
        return analysis(face()) if len(seen) == 1 else analysis()

    async with bot(tmp_path, FakeEngine(see)) as sandbox:
        ana = sandbox.person("ana")
        await ana.send_album([picture(0), picture(1)])
        card, refused = await ana.replies(2)
        assert card.photo
        assert card.buttons
        assert not refused.photo


async def test_an_answer_comes_within_its_deadline_and_others_are_served(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Semaphore(0)  # a device that never finishes
    async with bot(tmp_path, engine, answer_timeout_s=120) as sandbox:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ana.set_language("en")
        await ana.send_photo(picture())
        await engine.until_asked(1)
        await clock.advance_to(engine.deadline_s)
        assert (await ana.reply()).text == say("en", "refusal.deadline")
        engine.gate = None
        await ben.send_photo(picture())
        assert (await ben.reply()).photo


async def test_an_albums_finished_cards_are_sent_when_time_runs_out(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.gate = asyncio.Semaphore(2)  # two photos, then no more
    async with bot(tmp_path, engine, answer_timeout_s=120) as sandbox:
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_album([picture(seed) for seed in range(3)])
        await engine.until_asked(3)
        async with asyncio.timeout(60):
            while engine.served < 2:  # noqa: ASYNC110 (nobody announces it)
                await asyncio.sleep(0)
        await clock.advance_to(engine.deadline_s)
        *cards, late = await ana.replies(3)
        assert all(card.photo for card in cards)
        assert late.text == f"Photo 3: {say('en', 'refusal.deadline')}"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.RESET, method="sendPhoto", count=2),
        Fault(FaultKind.SERVER_ERROR, method="sendPhoto", count=2),
        Fault(FaultKind.TOO_MANY_REQUESTS, method="sendPhoto", retry_after_s=1),
        Fault(FaultKind.RESET, method="getFile", count=2),
        Fault(FaultKind.TRUNCATED_DOWNLOAD, method="download", count=2),
        Fault(FaultKind.SERVER_ERROR, method="download", count=1),
        Fault(FaultKind.SERVER_ERROR, method="sendChatAction", count=20),
        Fault(FaultKind.RESET, method="getUpdates", count=2),
        Fault(FaultKind.SERVER_ERROR, method="getUpdates", count=2),
    ],
    ids=lambda fault: f"{fault.kind.value}-{fault.method}",
)
async def test_a_passing_fault_of_telegram_costs_no_answer(tmp_path: Path, fault: Fault) -> None:
    async with bot(tmp_path) as sandbox:
        sandbox.faults.add(fault)
        ana = sandbox.person("ana")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo


async def test_a_download_that_fails_for_good_is_said(tmp_path: Path) -> None:
    async with bot(tmp_path) as sandbox:
        sandbox.faults.add(Fault(FaultKind.TRUNCATED_DOWNLOAD, method="download", count=50))
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        assert (await ana.reply()).text == say("en", "refusal.download_failed")


async def test_a_download_that_stalls_is_given_up(tmp_path: Path) -> None:
    async with bot(tmp_path, download_timeout_s=60, answer_timeout_s=300) as sandbox:
        sandbox.faults.add(stall := Fault(FaultKind.SLOW, method="download", delay_s=600))
        ana = sandbox.person("ana")
        await ana.set_language("en")
        await ana.send_photo(picture())
        await until_met(sandbox, stall)
        await clock.advance(60)
        assert (await ana.reply()).text == say("en", "refusal.download_failed")


async def test_a_duplicate_update_is_answered_once(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with bot(tmp_path, engine) as sandbox:
        sandbox.faults.add(Fault(FaultKind.DUPLICATE_UPDATE))
        ana = sandbox.person("ana")
        await ana.send_photo(picture())
        assert (await ana.reply()).photo
        await ana.send_text("/privacy")
        await ana.reply()
        await ana.send_text("/help")
        await ana.reply()
        assert engine.served == 1


async def test_a_person_who_blocked_the_bot_breaks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    engine = FakeEngine()
    engine.gate = asyncio.Semaphore(0)
    async with bot(tmp_path, engine) as sandbox:
        ana, ben = sandbox.person("ana"), sandbox.person("ben")
        await ana.send_photo(picture())
        await engine.until_asked(1)
        await ana.block()
        engine.gate.release()
        engine.gate.release()
        await ben.send_photo(picture(1))
        assert (await ben.reply()).photo
    assert "kind=photo outcome=blocked" in caplog.text


async def test_a_card_s_other_people_keep_no_pictures(tmp_path: Path) -> None:
    many = tuple(Match(f"n{n}", 0.01, 0.5, 50.0, Verdict.SOME, b"picture") for n in range(30))
    drawn: list[Analysis] = []

    def drawing(photo: bytes, shown: Analysis, **options: Any) -> bytes:
        drawn.append(shown)
        return draw(photo, shown, **options)

    engine = FakeEngine(lambda _photo: analysis(face(found=many), face(200, found=many)))
    async with bot(tmp_path, engine, drawing=drawing, matches=8) as sandbox:
        ana = sandbox.person("ana")
        await ana.send_photo(picture())
        answer = await ana.reply()
        await ana.press(answer, "2")
        await ana.edited(answer)
    for each in drawn[1].faces:
        assert [match.thumbnail for match in each.matches] == [b"picture"] * 5 + [None] * 3
