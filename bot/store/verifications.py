"""What a verification by video asks in few transactions: whose it is, and an attempt begun.

Knows nothing about faces or how attempts are judged.
"""

from bot.store import attempts, captures, faces, flows, people, preferences
from bot.store.faces import RotatedTemplates
from bot.store.fingerprints import Least
from bot.store.types import Attempt, Barred, Clip, Conversation, Flow, FlowKind, Known, Unusable
from bot.store.work import Work


async def read(work: Work, telegram_id: int) -> Conversation:
    """A person's flow, be its deadline past or not, and what a clip for it is compared with."""
    flow = await flows.read(work, telegram_id)
    language = await preferences.language(work, telegram_id)
    if flow is None or flow.kind is not FlowKind.VERIFY:
        return Conversation(flow, language)
    # Whether these are as the bot wrote them is looked at when the clip is claimed.
    subject = await people.lock(work, work.vault.code(_subject(flow)))
    known = {} if subject is None or subject.broken else await captures.read_of(work, subject)
    return Conversation(flow, language, known)


async def begin(
    work: Work,
    flow: Flow,
    nonce: bytes,
    clip: Clip,
    digest: bytes,
    compared: Known,
    least: Least,
) -> tuple[Attempt, RotatedTemplates | None] | Barred | Unusable:
    """Claim a clip and begin the attempt that it is for: see `captures.claim`, `attempts.begin`.

    Args:
        work: a transaction that writes.
        flow: as it was read.
        nonce: of the challenge by video.
        clip: what came. Where the templates are of another embedder, nobody is charged, and the
            flow ends.
        digest: SHA-256 of its bytes.
        compared: see `captures.claim`.
        least: see `captures.claim`.

    Returns:
        The attempt and the templates to compare with; else why there is none.
    """
    subject = _subject(flow)
    if not await captures.claim(
        work, subject, clip.file_unique_id, digest, clip.patterns, compared, least
    ):
        return Unusable.SEEN_BEFORE
    templates = await faces.read(work, subject)
    if templates is not None and templates.embedder != clip.embedder:
        await attempts.excuse(work, subject, nonce)
        await flows.end(work, flow)
        return Unusable.OTHER_EMBEDDER
    begun = await attempts.begin(work, flow, "video", nonce, subject=subject)
    if not isinstance(begun, Barred):
        return begun, templates
    if begun.reason == "expired":  # while it was looked at: it had come in time
        await attempts.excuse(work, subject, nonce)
    return begun


def _subject(flow: Flow) -> int:
    """Telegram id of whose face it is to be."""
    subject: int = flow.state.get("subject", flow.telegram_id)
    return subject
