import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from engine import bundle, default_bundle, doctor
from engine.default_bundle import ALWAYS_THERE, MORE_ACCURATE, choose
from engine.errors import BundleError, WeightsError
from engine.pipeline import Pipeline
from engine.runtime.reload import Reloader
from engine.settings import Settings
from engine.types import EngineInfo
from engine.vision.embed import mobilefacenet
from tests.engine import mobilefacenets
from tests.engine.bundles import manifest

PEOPLE = ("Ana", "Ben")


def gallery(stem, embedder_id, weights_sha256, dimension):
    vectors = torch.randn(len(PEOPLE), dimension, generator=torch.Generator().manual_seed(3))
    record = {"id": embedder_id, "weights_sha256": weights_sha256, "dimension": dimension}
    parts = {
        "prototypes": normalize(vectors, dim=1),
        "owner": torch.arange(len(PEOPLE)),
        "centre": torch.zeros(dimension),
    }
    return bundle.save(stem, manifest(PEOPLE, embedder=record), parts)


@pytest.fixture
def folder(tmp_path):
    """A folder with both bundles."""
    usual = bundle.load(ALWAYS_THERE).embedder
    home = tmp_path / "models"
    gallery(home / ALWAYS_THERE, usual.id, usual.weights_sha256, usual.dimension)
    gallery(home / MORE_ACCURATE, mobilefacenet.ID, mobilefacenet.WEIGHTS.sha256, 512)
    return home


@pytest.fixture
def settings(tmp_path):
    return Settings(face_weights_dir=tmp_path / "weights", engine_device="cpu")


def test_auto_is_the_more_accurate_one_where_all_of_it_is_here(folder, settings):
    file = mobilefacenets.put(settings.face_weights_dir, mobilefacenets.small())
    choice = choose(settings, folder, file)
    assert (choice.name, choice.stem) == (MORE_ACCURATE, folder / MORE_ACCURATE)
    assert choice.reason.startswith("bundle celebrities-mobilefacenet: ")


def test_without_the_weights_auto_is_the_usual_one_and_says_how_to_get_them(folder, settings):
    choice = choose(settings, folder)
    assert (choice.name, choice.stem) == (ALWAYS_THERE, folder / ALWAYS_THERE)
    assert choice.reason == (
        "bundle celebrities: mobilefacenet weights are not in "
        f"{settings.face_weights_dir}; `python -m training fetch mobilefacenet` gets the more "
        "accurate embedder"
    )


def test_weights_that_are_another_file_are_not_taken(folder, settings):
    mobilefacenets.put(settings.face_weights_dir, mobilefacenets.small())
    choice = choose(settings, folder)
    assert choice.name == ALWAYS_THERE
    assert "is not the expected file" in choice.reason
    assert "training fetch mobilefacenet" in choice.reason


@pytest.mark.parametrize("suffix", [".pth", ".json"])
def test_half_a_bundle_is_not_taken(folder, settings, suffix):
    file = mobilefacenets.put(settings.face_weights_dir, mobilefacenets.small())
    (folder / f"{MORE_ACCURATE}{suffix}").unlink()
    choice = choose(settings, folder, file)
    assert choice.name == ALWAYS_THERE
    assert f"{MORE_ACCURATE}{suffix} is not in {folder}" in choice.reason


def test_what_the_operator_names_is_taken_without_a_word(folder, settings):
    named = settings.model_copy(update={"engine_bundle": "family"})
    assert choose(named, folder).stem == folder / "family"
    assert choose(named, folder).reason == ""
    # A bundle that somebody has called so is one by its path.
    path = settings.model_copy(update={"engine_bundle": "./auto"})
    assert choose(path, folder).stem == Path("auto")
    with pytest.raises(BundleError, match="names no bundle"):
        choose(settings.model_copy(update={"engine_bundle": ".."}), folder)


def test_the_engine_serves_it_and_logs_why(folder, settings, monkeypatch, caplog):
    monkeypatch.setattr(default_bundle, "choose", partial(choose, folder=folder))
    with caplog.at_level(logging.INFO, "engine.pipeline"):
        info = Pipeline.from_settings(settings).info()
    assert (info.bundle.split("@")[0], info.embedder) == (ALWAYS_THERE, "dlib-resnet29")
    (line,) = caplog.messages
    assert line == choose(settings, folder).reason
    # After a fetch, the same settings mean the other one.
    better = settings.model_copy(update={"face_weights_dir": mobilefacenets.real_folder()})
    info = Pipeline.from_settings(better).info()
    assert (info.bundle.split("@")[0], info.embedder) == (MORE_ACCURATE, mobilefacenet.ID)


def test_a_bundle_named_without_its_weights_says_which_command(folder, settings):
    named = settings.model_copy(update={"engine_bundle": str(folder / MORE_ACCURATE)})
    with pytest.raises(WeightsError, match="training fetch mobilefacenet"):
        Pipeline.from_settings(named)


async def test_a_reload_watches_what_it_has_chosen(folder, settings):
    file = mobilefacenets.put(settings.face_weights_dir, mobilefacenets.small())
    weights_path = settings.face_weights_dir / file.name
    weights_path.rename(weights_path.with_suffix(".away"))
    looked_at = []

    def description():
        looked_at.append(f"{choose(settings, folder, file).stem}.json")
        return Path(looked_at[-1])

    class Holder:
        def swap(self, analyzer):
            pass

    class Analyzer:
        def info(self):
            return EngineInfo("1", "any@0", "none", 1, "cpu")

    made: Any = Analyzer
    reloader = Reloader(Holder(), made, file=description)
    weights_path.with_suffix(".away").rename(weights_path)
    await reloader.reload()
    assert [Path(name).stem for name in looked_at] == [ALWAYS_THERE, MORE_ACCURATE]


def findings(settings):
    return {found.subject: found for found in doctor.examine(settings)}


def test_doctor_tells_what_auto_means_and_that_weights_can_be_fetched(settings):
    found = findings(settings)
    assert found["ENGINE_BUNDLE"].state == f"auto: {choose(settings).reason}"
    weights = found["weights of mobilefacenet"]
    assert "training fetch mobilefacenet" in weights.state
    assert weights.fix == ""
    assert found["onnxruntime"].fix == ""


def test_doctor_finds_weights_sound():
    settings = Settings(face_weights_dir=mobilefacenets.real_folder(), engine_device="cpu")
    assert findings(settings)["weights of mobilefacenet"].state.startswith("sound (")


def test_doctor_finds_weights_that_are_another_file(settings):
    mobilefacenets.put(settings.face_weights_dir, mobilefacenets.small())
    weights = findings(settings)["weights of mobilefacenet"]
    assert weights.state == "weights_corrupt"
    assert "training fetch mobilefacenet" in weights.fix


def test_doctor_wants_the_weights_of_the_bundle_in_use(folder, settings):
    named = settings.model_copy(update={"engine_bundle": str(folder / MORE_ACCURATE)})
    used = findings(named)[f"bundle {MORE_ACCURATE} (in use)"]
    assert used.state == "weights_missing"
    assert "training fetch mobilefacenet" in used.fix
