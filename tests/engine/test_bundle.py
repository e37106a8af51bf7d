import csv
import json
import math
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import bundle
from engine.errors import BundleError
from tests.engine.bundles import make, manifest
from tests.engine.logins import calibration, point


def code_of(stem):
    with pytest.raises(BundleError) as caught:
        bundle.load(stem)
    assert caught.value.message.endswith(".")
    return caught.value.code, caught.value.message


def test_comes_back_as_it_was_written(tmp_path):
    stem = make(tmp_path, people=("Ñandú Pérez", "李"))
    read = bundle.load(stem)
    assert read.manifest.people == {0: "Ñandú Pérez", 1: "李"}
    assert read.tensors["prototypes"].shape == (2, 128)
    assert read.id.startswith("people@")
    assert bundle.load(f"{stem}.json").id == bundle.load(f"{stem}.pth").id == read.id


def test_same_input_gives_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    for suffix in (".pth", ".json"):
        own = first.with_suffix(suffix).read_bytes()
        assert own == second.with_suffix(suffix).read_bytes()


def test_a_bare_name_stands_for_one_in_the_folder(tmp_path):
    make(tmp_path)
    assert bundle.load("people", tmp_path).name == "people"


def test_absent_says_what_is_there(tmp_path):
    make(tmp_path)
    code, message = code_of(tmp_path / "others")
    assert code == "bundle_missing"
    assert "people" in message
    assert "python -m training gallery" in message


@pytest.mark.parametrize("suffix", [".pth", ".json"])
def test_half_a_bundle_is_none(tmp_path, suffix):
    stem = make(tmp_path)
    stem.with_suffix(suffix).unlink()
    code, message = code_of(stem)
    assert code == "bundle_incomplete"
    assert f"people{suffix} is not" in message


def test_weights_of_another_bundle_are_refused(tmp_path):
    stem, other = make(tmp_path / "a"), make(tmp_path / "b", people=("Zoe",))
    stem.with_suffix(".pth").write_bytes(other.with_suffix(".pth").read_bytes())
    assert code_of(stem)[0] == "bundle_corrupt"


def test_a_map_of_names_alone_says_how_to_convert_it(tmp_path):
    stem = make(tmp_path)
    stem.with_suffix(".json").write_text('{"0": "Ana", "1": "Ben"}')
    code, message = code_of(stem)
    assert code == "bundle_unconverted"
    assert "python -m training gallery" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\x00"])
def test_a_damaged_description_is_refused(tmp_path, text):
    stem = make(tmp_path)
    stem.with_suffix(".json").write_text(text)
    assert code_of(stem)[0] == "bundle_corrupt"


def test_calibrations_that_make_no_sense_are_refused(tmp_path):
    stem = make(tmp_path)
    path = stem.with_suffix(".json")
    for part, field, value in (
        (None, "stranger_quantiles", [0.5, 0.1]),
        (None, "stranger_quantiles", [0.1, float("nan"), 0.5]),
        ("identification", "strangers", -1),
        ("identification", "threshold", float("nan")),
    ):
        record = json.loads(path.read_text())
        calibration = record["calibration"]
        (calibration[part] if part else calibration)[field] = value
        other = tmp_path / "other.json"
        other.write_text(json.dumps(record))
        other.with_suffix(".pth").write_bytes(stem.with_suffix(".pth").read_bytes())
        assert code_of(tmp_path / "other")[0] == "bundle_corrupt"


def test_a_name_is_a_name_and_a_path_is_a_path(tmp_path):
    assert bundle.locate("people", tmp_path) == tmp_path / "people"
    assert bundle.locate("people.json", tmp_path) == tmp_path / "people"
    assert bundle.locate("./people", tmp_path) == Path("people")
    assert bundle.locate(Path("people"), tmp_path) == Path("people")


@pytest.mark.parametrize("name", ["", ".", "..", "models/..", Path(), Path("/")])
def test_what_ends_in_no_name_names_no_bundle(name):
    with pytest.raises(BundleError, match="names no bundle"):
        bundle.locate(name)


@pytest.mark.parametrize("text", ["[" * 100_000])
def test_a_description_nested_too_deep_is_refused(tmp_path, text):
    stem = make(tmp_path)
    stem.with_suffix(".json").write_text(text)
    assert code_of(stem)[0] == "bundle_corrupt"


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("preprocessing", 99)])
def test_another_version_is_refused(tmp_path, field, value):
    stem = make(tmp_path)
    path = stem.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert code_of(stem)[0] == "bundle_mismatch"


class _Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_crafted_pickle_does_not_run(tmp_path):
    stem, marker = make(tmp_path), tmp_path / "executed"
    path = stem.with_suffix(".pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Payload(marker), protocol=2))
        archive.writestr("archive/version", "3")
    _describe_anew(stem)
    assert code_of(stem)[0] == "bundle_corrupt"
    torch.save({"prototypes": _Payload(marker)}, path)
    _describe_anew(stem)
    assert code_of(stem)[0] == "bundle_corrupt"
    assert not marker.exists()


def test_something_else_than_tensors_is_refused(tmp_path):
    stem = make(tmp_path)
    torch.save([1, 2, 3], stem.with_suffix(".pth"))
    _describe_anew(stem)
    assert code_of(stem)[0] == "bundle_corrupt"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    stem = make(tmp_path)
    before = stem.with_suffix(".pth").read_bytes()
    with pytest.raises(ValueError, match="has diverged"):
        make(tmp_path, tensors={"centre": torch.full((128,), value)})
    assert stem.with_suffix(".pth").read_bytes() == before
    tensors = torch.load(stem.with_suffix(".pth"), weights_only=True)
    torch.save(tensors | {"centre": torch.full((128,), value)}, stem.with_suffix(".pth"))
    _describe_anew(stem)
    code, message = code_of(stem)
    assert code == "bundle_corrupt"
    assert "not finite" in message


def _describe_anew(stem):
    """Make the description fit the weights, as an attacker would."""
    import hashlib

    path = stem.with_suffix(".json")
    digest = hashlib.sha256(stem.with_suffix(".pth").read_bytes()).hexdigest()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pth_sha256": digest}))


def test_a_failed_write_leaves_the_old_bundle(tmp_path, monkeypatch):
    stem = make(tmp_path)
    before = bundle.load(stem).id

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        bundle.save(stem, manifest(("Zoe",)), {"prototypes": torch.zeros(1, 128)})
    assert bundle.load(stem).id == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.json", "people.pth"]


def spoilt(read):
    """Descriptions that were put together out of parts that were right when they were made."""
    calibration = read.manifest.calibration
    record = calibration.identification

    def described(**changes):
        return {"calibration": calibration.model_copy(update=changes)}

    nan = math.nan
    return {
        "fmr": described(identification=record.model_copy(update={"fmr": nan})),
        "fmr_upper_95": described(identification=record.model_copy(update={"fmr_upper_95": 1.5})),
        "true_positive_rate": described(
            identification=record.model_copy(update={"true_positive_rate": nan})
        ),
        "temperature": described(temperature=math.inf),
        "floors": described(floors={0: nan}),
        "tail": described(
            tail=bundle.TailRecord.model_construct(start=0.5, rate=1.0, shape=0.0, scale=0.1)
        ),
    }


SPOILT = ("fmr", "fmr_upper_95", "true_positive_rate", "temperature", "floors", "tail")


@pytest.mark.parametrize("part", SPOILT)
def test_what_could_not_be_read_again_is_not_written(tmp_path, part):
    stem = make(tmp_path)
    before = [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")]
    record = manifest(("Zoe",)) | spoilt(bundle.load(stem))[part]
    with pytest.raises(ValueError, match=part):
        bundle.save(stem, record, {"prototypes": torch.zeros(1, 128)})
    assert [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")] == before
    assert {path.name for path in tmp_path.iterdir()} == {"people.pth", "people.json"}
    bundle.load(stem)


@pytest.mark.parametrize("part", SPOILT)
def test_nor_is_a_description_rewritten_so(tmp_path, part):
    stem = make(tmp_path)
    read, before = bundle.load(stem), stem.with_suffix(".json").read_bytes()
    with pytest.raises(ValueError, match="not written"):
        bundle.rewrite(stem, read.manifest.model_copy(update=spoilt(read)[part]))
    assert stem.with_suffix(".json").read_bytes() == before


def test_a_login_with_a_rate_that_is_no_number_is_not_written(tmp_path):
    stem = make(tmp_path, login=calibration())
    before = [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")]
    login = calibration()
    nothing = replace(login.points[0], fnmr=math.nan)
    object.__setattr__(login, "points", (nothing,))
    with pytest.raises(ValueError, match="login"):
        make(tmp_path, login=login)
    assert [stem.with_suffix(suffix).read_bytes() for suffix in (".pth", ".json")] == before


def test_what_is_said_about_people_comes_back(tmp_path):
    said = {
        0: {"country": "AR", "known_for": {"en": "singer", "es": "cantante"}},
        2: {"country": ""},
    }
    about = bundle.load(make(tmp_path, about=said)).manifest.about
    assert {i: (one.country, one.known_for) for i, one in about.items()} == {
        0: ("AR", {"en": "singer", "es": "cantante"}),
        2: ("", {}),
    }
    assert bundle.load(make(tmp_path / "old")).manifest.about == {}


@pytest.mark.parametrize("country", ["ar", "ARG", "Argentina", "A1"])
def test_a_country_is_a_code(tmp_path, country):
    with pytest.raises(ValueError, match="country"):
        make(tmp_path, about={0: {"country": country}})


def test_further_figures_of_a_calibration_come_back(tmp_path):
    record = manifest(("Ana", "Ben", "Carla"))["calibration"]
    record |= {
        "strangers": "lfw",
        "tail": {"start": 0.5, "rate": 0.1, "shape": -0.2, "scale": 0.04},
        "floors": {1: 0.75},
    }
    record["identification"]["repeated"] = {"people": 9, "share": 0.0, "share_upper_95": 0.3}
    stem = make(tmp_path, calibration=record, login_absent="There are too few people.")
    read = bundle.load(stem)
    found = read.calibration
    assert found.strangers == "lfw"
    assert found.tail.model_dump() == record["tail"]
    assert [found.threshold_of(person) for person in range(3)] == [0.7, 0.75, 0.7]
    assert found.identification.repeated.model_dump() == record["identification"]["repeated"]
    assert read.manifest.login_absent == "There are too few people."


def test_a_bundle_of_an_earlier_release_lacks_them(tmp_path):
    stem = make(tmp_path)
    record = json.loads(stem.with_suffix(".json").read_text())
    for name in ("about", "login_absent"):
        del record[name]
    for name in ("tail", "strangers", "floors"):
        del record["calibration"][name]
    del record["calibration"]["identification"]["repeated"]
    stem.with_suffix(".json").write_text(json.dumps(record))
    read = bundle.load(stem)
    assert read.calibration.tail is None
    assert read.calibration.threshold_of(1) == read.calibration.identification.threshold
    assert read.manifest.about == {}


def test_the_default_bundle_is_sound():
    celebrities = bundle.load("celebrities")
    people, about = celebrities.manifest.people, celebrities.manifest.about
    with (bundle.FOLDER / "celebrities.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    listed = {row["display_name"]: row for row in rows}
    assert sorted(people.values()) == sorted(listed)
    for number, name in people.items():
        assert about[number].country == listed[name]["country"]
        assert about[number].known_for["es"] == listed[name]["known_for_es"]
    assert "thumbnails" not in celebrities.tensors
    calibration = celebrities.calibration
    assert calibration.strangers
    assert calibration.identification.fmr <= 1e-3
    assert calibration.identification.fmr_upper_95 <= 2e-3
    assert calibration.identification.repeated.share <= 0.01
    assert celebrities.manifest.login.source == "own"


def test_a_login_comes_back_as_it_was_written(tmp_path):
    assert bundle.load(make(tmp_path / "old")).manifest.login is None
    login = calibration()
    stem = make(tmp_path, login=login)
    read = bundle.load(stem).manifest.login
    assert read == login
    assert read.version == login.version
    written = stem.with_suffix(".json").read_bytes()
    bundle.rewrite(stem, bundle.load(stem).manifest)
    assert stem.with_suffix(".json").read_bytes() == written


@pytest.mark.parametrize(
    "changes",
    [
        {"embedder": "facenet-vggface2"},
        {"weights_sha256": "0" * 64},
        {"preprocessing": bundle.PREPROCESSING + 1},
        {"centre": [0.0] * 127},
    ],
)
def test_a_login_of_another_embedder_is_refused(tmp_path, changes):
    stem = make(tmp_path, login=calibration())
    record = json.loads(stem.with_suffix(".json").read_text())
    record["login"] |= changes
    stem.with_suffix(".json").write_text(json.dumps(record))
    code, message = code_of(stem)
    assert code == "bundle_corrupt"
    assert "calibrate --login" in message


@pytest.mark.parametrize("damaged", [{}, [], "none", {"points": []}, {"centre": ["a"]}])
def test_a_damaged_login_is_refused(tmp_path, damaged):
    stem = make(tmp_path, login=calibration(points=(point(),)))
    record = json.loads(stem.with_suffix(".json").read_text())
    record["login"] = (
        record["login"] | damaged if damaged and isinstance(damaged, dict) else damaged
    )
    stem.with_suffix(".json").write_text(json.dumps(record))
    code, message = code_of(stem)
    assert code == "bundle_corrupt"
    assert "login" in message


# --- What somebody else may have made ---


def changed(tmp_path, change, **options):
    """A bundle whose description was changed by hand."""
    stem = make(tmp_path, **options)
    path = stem.with_suffix(".json")
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    return stem


@pytest.mark.parametrize("character", ["\x1b", "\n", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"])
@pytest.mark.parametrize(
    "put",
    [
        lambda record, text: record["people"].update({"1": text}),
        lambda record, text: record.update(about={"0": {"known_for": {"en": text}}}),
        lambda record, text: record["dataset"].update(licence=text),
        lambda record, text: record["calibration"].update(source=text),
        lambda record, text: record.update(login_absent=text),
        lambda record, text: record["architecture"].update(licence=[text]),
        lambda record, text: record["metrics"].update({text: 1.0}),
        lambda record, text: record.update(format=text),
    ],
)
def test_texts_that_would_be_obeyed_instead_of_read_are_refused(tmp_path, put, character):
    code, message = code_of(changed(tmp_path, lambda record: put(record, f"A{character}[2Jna")))
    assert code == "bundle_corrupt"
    assert f"U+{ord(character):04X}" in message
    assert message.isprintable()


def test_names_of_all_scripts_are_no_such_texts(tmp_path):
    names = ("Ñandú Pérez", "李小龍", "محمد علي", "می‌خواهم", "דוד", "O’Neill 👩‍🚀")
    assert bundle.load(make(tmp_path, people=names)).manifest.people == dict(enumerate(names))


@pytest.mark.parametrize("name", ["An\x1b[2Ja", "a\u202egnp.exe"])
def test_such_names_are_not_written(tmp_path, name):
    with pytest.raises(ValueError, match=r"people\.1.*U\+"):
        make(tmp_path, people=("Ben", name))
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_would_be_refused_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"not written: architecture\.epochs is larger than"):
        make(tmp_path, architecture={"prototypes": 3, "epochs": 2**60})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0"])
@pytest.mark.parametrize(
    "place",
    [
        ("metrics", "top_1"),
        ("architecture", "epochs"),
        ("calibration", "temperature"),
        ("calibration", "pairs", 0, "true_accept_rate"),
        ("calibration", "pairs", 0, "people"),
        ("login", "agreement"),
        ("login", "centre", 0),
    ],
)
def test_numbers_without_measure_are_refused(tmp_path, place, text):
    stem = make(tmp_path, login=calibration())
    path = stem.with_suffix(".json")
    record = part = json.loads(path.read_text())
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = "put here"
    path.write_text(json.dumps(record).replace('"put here"', text))
    assert code_of(stem)[0] == "bundle_corrupt"


def put(*place, value):
    def change(record):
        part = record
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("calibration", "identification", "threshold", value=1e-9),
        put("calibration", "identification", "threshold", value=0),
        put("calibration", "identification", "threshold", value=3),
        put("calibration", "pairs", 0, "threshold", value=1e-9),
        put("calibration", "floors", value={"0": 1e-9}),
        put("calibration", "temperature", value=1e-9),
        put("calibration", "tail", value={"start": 9, "rate": 0.1, "shape": -0.2, "scale": 0.04}),
        put("login", "points", 0, "threshold", value=1e-9),
        put("login", "points", 0, "threshold", value=0.04),
        put("calibration", "pairs", 0, "true_accept_rate", value=7),
        put("calibration", "pairs", 0, "people", value=-1),
        put("dataset", "photos", value=-1),
    ],
)
def test_thresholds_and_shares_that_nobody_measured_are_refused(tmp_path, change):
    assert code_of(changed(tmp_path, change, login=calibration()))[0] == "bundle_corrupt"


@pytest.mark.parametrize(
    "change",
    [
        put("people", value={"0": "Ana", "1": "Ben", "3": "Carla"}),
        put("people", value={"0": "Ana", "1": "Ben", "-1": "Carla"}),
        put("people", value={"0": "Ana", "1": "Ben", "999999999999": "Carla"}),
        put("people", value={}),
        put("people", "0", value="A" * 10_000),
        put("people", "0", value=""),
        put("about", value={"3": {"country": "AR"}}),
        put("about", value={"-1": {"country": "AR"}}),
        put("calibration", "floors", value={"3": 0.9}),
        put("calibration", "floors", value={"-1": 0.9}),
        put("architecture", "dimension", value=10**8),
        put("architecture", "dimension", value=-1),
        put("architecture", "input_px", value=10**6),
        put("architecture", "input_px", value="1000000"),
        put("embedder", "dimension", value=10**9),
    ],
)
def test_numbers_beyond_the_bundle_are_refused(tmp_path, change):
    assert code_of(changed(tmp_path, change))[0] == "bundle_corrupt"


@pytest.mark.parametrize(("suffix", "most"), [(".json", "_JSON_BYTES"), (".pth", "_PTH_BYTES")])
def test_a_file_beyond_measure_is_not_read(tmp_path, monkeypatch, suffix, most):
    stem = make(tmp_path)
    monkeypatch.setattr(bundle, most, stem.with_suffix(suffix).stat().st_size - 1)
    code, message = code_of(stem)
    assert code == "bundle_corrupt"
    assert f"people{suffix} has" in message


_MEASURE = """
import resource, sys
from pathlib import Path
from engine import bundle
from engine.errors import BundleError

good, bad = map(Path, sys.argv[1:])
bundle.load(good)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    bundle.load(bad)
except BundleError as error:
    print(error.code, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
ROOT = Path(__file__).parents[2]


def repacked(stem, change, compression=zipfile.ZIP_STORED):
    """A bundle's .pth packed anew, its parts changed."""
    path = stem.with_suffix(".pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    _describe_anew(stem)


def _part(parts, ending):
    (name,) = [name for name in parts if name.endswith(ending)]
    return name


def _inflating(stem):
    torch.save({"prototypes": torch.zeros(2**26)}, stem.with_suffix(".pth"))
    repacked(stem, lambda parts: None, zipfile.ZIP_DEFLATED)


def _inflating_pickle(stem):
    def change(parts):
        parts[_part(parts, "data.pkl")] += bytes(2**28)

    repacked(stem, change, zipfile.ZIP_DEFLATED)


def _repeating(stem):
    torch.save({"prototypes": torch.zeros(1)}, stem.with_suffix(".pth"))
    state = torch.load(stem.with_suffix(".pth"))
    torch.save({"prototypes": state["prototypes"].expand(2**26)}, stem.with_suffix(".pth"))
    _describe_anew(stem)


def _making_bytes(stem):
    def change(parts):
        # bytearray(2**28), which torch's own reader allows
        made = b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x10\x85R."
        parts[_part(parts, "data.pkl")] = made

    repacked(stem, change)


@pytest.mark.parametrize("spoil", [_inflating, _inflating_pickle, _repeating, _making_bytes])
def test_a_small_file_takes_little_memory(tmp_path, spoil):
    good, bad = make(tmp_path / "good"), make(tmp_path / "bad")
    spoil(bad)
    assert bad.with_suffix(".pth").stat().st_size < 2**20
    child = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(good), str(bad)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    code, grown_mb = child.stdout.split()
    assert code == "bundle_corrupt"
    assert int(grown_mb) < 32


def test_what_torch_writes_is_read_as_it_is(tmp_path):
    """Every kind of number that a network's state has, and parts of one storage."""
    whole = torch.arange(8, dtype=torch.float32)
    tensors = {
        "half": whole.half(),
        "brain": whole.bfloat16(),
        "double": whole.double(),
        "count": torch.tensor(3),
        "flags": whole > 2,
        "bytes": whole.byte(),
        "first": whole[:4],
        "rest": whole[4:],
        "none": whole[:0],
    }
    read = bundle.load(make(tmp_path, tensors=tensors)).tensors
    assert all(torch.equal(read[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("name", ["celebrities", "celebrities-mobilefacenet"])
def test_tracked_bundles_load(name):
    assert len(bundle.load(name).manifest.people) > 500
