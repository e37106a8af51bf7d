import pytest

from training.fit import runs


def begin(folder, name="mine", what="one"):
    return runs.begin(name, {"what": what}, folder)


def test_another_run_of_that_name_takes_its_place(tmp_path):
    first = begin(tmp_path)
    first.checkpoints.mkdir()
    (first.home / "history").mkdir()
    second = begin(tmp_path, what="another")
    assert second.home == first.home
    assert [entry.name for entry in second.home.iterdir()] == ["run.json"]


def test_runs_inside_a_run_go_with_it(tmp_path):
    begin(tmp_path, "mine/fold-1")
    begin(tmp_path, "mine")
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["run.json"]


def test_a_folder_of_photos_is_no_run(tmp_path):
    photo = tmp_path / "mine" / "Ann" / "1.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"dear")
    with pytest.raises(ValueError, match="something else than training runs"):
        begin(tmp_path)
    assert photo.read_bytes() == b"dear"


def test_a_link_is_no_run(tmp_path):
    other = begin(tmp_path / "elsewhere")
    (tmp_path / "mine").symlink_to(other.home)
    with pytest.raises(ValueError, match="something else than training runs"):
        begin(tmp_path, what="another")
    assert (other.home / "run.json").exists()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_is_no_name_is_refused(tmp_path, name):
    begin(tmp_path / "runs")
    with pytest.raises(ValueError, match="no name for a training run"):
        begin(tmp_path / "runs", name)
    assert (tmp_path / "runs" / "mine" / "run.json").exists()


def test_a_name_is_trained_by_one_command_at_a_time(tmp_path, monkeypatch):
    with runs.alone("mine", tmp_path):
        with runs.alone("other", tmp_path):
            pass
        with pytest.raises(ValueError, match="Another command is training mine"):
            runs.alone("mine", tmp_path).__enter__()
        monkeypatch.setenv("LOCAL_RANK", "1")
        with runs.alone("mine", tmp_path):  # helps the first one
            pass
        monkeypatch.delenv("LOCAL_RANK")
    with runs.alone("mine", tmp_path):
        pass
