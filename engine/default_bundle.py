"""Which bundle ENGINE_BUNDLE means; "auto" is the best of those that come with face-matcher.

Knows their names and what each one needs; knows nothing about what is in a bundle.
"""

from dataclasses import dataclass
from pathlib import Path

from engine import bundle
from engine.errors import WeightsError
from engine.settings import AUTO, Settings
from engine.vision.embed import mobilefacenet
from engine.vision.weights import WeightsFile

MORE_ACCURATE = "celebrities-mobilefacenet"
ALWAYS_THERE = "celebrities"


@dataclass(frozen=True, slots=True)
class Choice:
    """A bundle.

    Attributes:
        name: as ENGINE_BUNDLE would name it.
        stem: its path without suffix.
        reason: why it was chosen, as a line for the log; "" where the operator named it.
    """

    name: str
    stem: Path
    reason: str


def choose(
    settings: Settings,
    folder: Path = bundle.FOLDER,
    weights_file: WeightsFile = mobilefacenet.WEIGHTS,
) -> Choice:
    """The bundle that the settings mean. "auto" reads 5 MB of weights, to verify them.

    Args:
        settings: ENGINE_BUNDLE and FACE_WEIGHTS_DIR are read.
        folder: where bundles lie that are named without a path.
        weights_file: what the more accurate bundle needs.

    Raises:
        BundleError: ENGINE_BUNDLE is the name of none.
    """
    if settings.engine_bundle != AUTO:
        name = settings.engine_bundle
        return Choice(name, bundle.locate(name, folder), "")
    hindrance = _hindrance(folder, settings.face_weights_dir, weights_file)
    name = ALWAYS_THERE if hindrance else MORE_ACCURATE
    reason = f"bundle {name}: {hindrance or 'it and the weights of mobilefacenet are here'}"
    return Choice(name, folder / name, reason)


def _hindrance(folder: Path, weights_folder: Path, weights_file: WeightsFile) -> str:
    """Why the more accurate bundle cannot be used; "" where it can."""
    files = [f"{MORE_ACCURATE}.pth", f"{MORE_ACCURATE}.json"]
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {folder}"
    try:
        mobilefacenet.locate(weights_folder, weights_file)
    except WeightsError as error:
        if error.code != "weights_missing":
            return error.message
        return (
            f"mobilefacenet weights are not in {weights_folder}; `python -m training fetch "
            "mobilefacenet` gets the more accurate embedder"
        )
    return ""
