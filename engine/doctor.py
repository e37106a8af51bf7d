"""Looks the installation over: what is there, what is wrong, and how to mend it.

Knows how to look; knows nothing about how the findings are printed.
"""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import features

from engine import bundle, default_bundle, threads
from engine.bundle import Bundle
from engine.errors import BundleError, EngineError
from engine.media import clip
from engine.media.decoder_pool import PhotoDecoders
from engine.people import recogniser
from engine.settings import Settings
from engine.vision import embed
from engine.vision.device import choose_device
from engine.vision.embed import facenet_vggface2, mobilefacenet
from engine.vision.weights import find

_PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "pillow-heif", "facenet-pytorch"),
    *("onnxruntime", "av", "psutil"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: what was looked at.
        state: what was found.
        fix: what to do about it, where it is a problem; empty where all is well.
    """

    subject: str
    state: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything worth looking at, one finding after the other."""
    yield Finding("Python", platform.python_version())
    yield from _packages()
    yield _device(settings)
    used = threads.chosen(settings.engine_threads)
    yield Finding("cores", f"{threads.usable_cores()}, of which networks use {used}")
    yield from _formats()
    yield _photos()
    yield _clips()
    yield _dlib_weights()
    yield _facenet_weights(settings)
    yield _mobilefacenet_weights(settings)
    yield from _bundles(settings)


def _packages() -> Iterator[Finding]:
    for name in _PACKAGES:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "Run `uv sync`.")


def _device(settings: Settings) -> Finding:
    try:
        device = choose_device(settings.engine_device)
    except EngineError as error:
        return Finding("device", settings.engine_device, error.message)
    if device.type == "cpu":
        return Finding("device", "cpu (no GPU seen by torch)")
    properties = torch.cuda.get_device_properties(device)
    return Finding("device", f"{device}: {properties.name}, {properties.total_memory >> 30} GiB")


def _formats() -> Iterator[Finding]:
    for name, module in (("JPEG", "jpg"), ("PNG", "zlib"), ("WebP", "webp"), ("AVIF", "avif")):
        there = features.check(module)
        fix = "" if there else "Reinstall Pillow from a wheel: `uv sync --reinstall-package pillow`"
        yield Finding(f"{name} photos", "read" if there else "not read", fix)
    try:
        import pillow_heif

        yield Finding("HEIC photos", f"read (libheif {pillow_heif.libheif_version()})")
    except (ImportError, OSError) as error:
        yield Finding("HEIC photos", f"not read ({error})", "Run `uv sync`.")


def _photos() -> Finding:
    subject = "decoders of photos and clips"
    try:
        with PhotoDecoders(1) as decoders:
            in_force = decoders.in_force()
    except EngineError as error:
        return Finding(subject, "not started", error.message)
    limited = "limited memory, processor time and files; no environment"
    state = ", ".join([limited, *in_force])
    if sys.platform == "linux" and "seccomp" not in in_force:
        return Finding(
            subject,
            f"{state}; system calls are not filtered",
            "Install libseccomp2 (Debian, Ubuntu: `apt install libseccomp2`).",
        )
    return Finding(subject, state)


def _clips() -> Finding:
    hindrance = clip.hindrance()
    return Finding(
        f"{clip.ACCEPTED} clips",
        f"not decoded: {hindrance}" if hindrance else "decoded",
        "Run `uv sync`; a clip's decoder needs 512 MiB of memory." if hindrance else "",
    )


def _dlib_weights() -> Finding:
    try:
        embed.load("dlib-resnet29", torch.device("cpu"), Path())
    except EngineError as error:
        return Finding("weights of dlib-resnet29", error.code, error.message)
    return Finding("weights of dlib-resnet29", "sound")


def _facenet_weights(settings: Settings) -> Finding:
    try:
        path = find(facenet_vggface2.WEIGHTS, settings.face_weights_dir)
    except EngineError as error:
        return Finding("weights of facenet-vggface2", error.code, error.message)
    state = f"sound ({path})" if path else "not here; fetched when first used"
    return Finding("weights of facenet-vggface2", state)


def _mobilefacenet_weights(settings: Settings) -> Finding:
    subject = f"weights of {mobilefacenet.ID}"
    try:
        return Finding(subject, f"sound ({mobilefacenet.locate(settings.face_weights_dir)})")
    except EngineError as error:
        if error.code != "weights_missing":
            return Finding(subject, error.code, error.message)
    # No problem as long as no bundle in use wants them; `_try` looks.
    return Finding(subject, "not here; `python -m training fetch mobilefacenet` gets them")


def _bundles(settings: Settings) -> Iterator[Finding]:
    chosen: Path | None = None
    try:
        choice = default_bundle.choose(settings)
        chosen = choice.stem
        if choice.reason:
            yield Finding("ENGINE_BUNDLE", f"{settings.engine_bundle}: {choice.reason}")
    except EngineError as error:
        yield Finding("bundle (in use)", error.code, error.message)
    stems = {path.with_suffix("") for path in bundle.FOLDER.glob("*.json")}
    stems |= {path.with_suffix("") for path in bundle.FOLDER.glob("*.pth")}
    for stem in [*([chosen] if chosen else []), *sorted(stems - {chosen})]:
        used = " (in use)" if stem == chosen else ""
        try:
            found = bundle.load(stem)
            _try(found, stem, settings)
            if stem == chosen and found.manifest.kind != "vectorizer":
                _require_weights(found, settings)
        except EngineError as error:
            yield Finding(f"bundle {stem.name}{used}", error.code, error.message)
            continue
        made_with = found.manifest.embedder
        known = made_with is None or embed.is_known(made_with.id)
        people = f" of {len(found.manifest.people)} people" if found.manifest.people else ""
        yield Finding(
            f"bundle {found.id}{used}",
            f"{found.manifest.kind}{people}, {made_with.id if made_with else 'from nothing'}, "
            f"made {found.manifest.created}",
            "" if known else "Its embedder is not in this version; build the bundle again.",
        )
    if not os.access(bundle.FOLDER, os.W_OK):
        yield Finding("run/models", "not writable", f"chown or chmod {bundle.FOLDER}.")


def _try(found: Bundle, stem: Path, settings: Settings) -> None:
    """Raise what using a bundle would, its embedder included where that is one trained here."""
    cpu = torch.device("cpu")
    if found.manifest.kind == "vectorizer":
        embed.load(f"trained:{stem}", cpu, settings.face_weights_dir)
        return
    recogniser.load(found, cpu)
    if found.embedder.id.startswith("trained:"):
        form = embed.load(found.embedder.id, cpu, settings.face_weights_dir).specification
        if not found.made_with(form.id, form.weights_sha256):
            raise BundleError(
                f"{found.name} was made with {form.id} before that was trained anew. Build it "
                "again.",
                code="bundle_mismatch",
            )


def _require_weights(found: Bundle, settings: Settings) -> None:
    """Raise where the bundle wants weights that nobody fetches for it."""
    if found.embedder.id == mobilefacenet.ID:
        mobilefacenet.locate(settings.face_weights_dir)
