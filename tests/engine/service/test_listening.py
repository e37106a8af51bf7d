import socket
import stat

import pytest

from engine.errors import ConfigurationError
from engine.service.listening import listener, require_key, url_of
from engine.settings import Settings


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "engine.example"])
def test_strangers_need_a_key(host):
    with pytest.raises(ConfigurationError, match="ENGINE_API_KEY"):
        require_key(Settings(engine_host=host))
    require_key(Settings(engine_host=host, engine_api_key="k"))


def test_this_machine_needs_none(tmp_path):
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        require_key(Settings(engine_host=host))
    require_key(Settings(engine_host="0.0.0.0", engine_socket=tmp_path / "socket"))


def test_any_free_port():
    with listener(Settings(engine_port=0)) as taken:
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}"
        taken.listen()
        with (
            pytest.raises(ConfigurationError, match=r"ENGINE_PORT.*free"),
            listener(Settings(engine_port=port)),
        ):
            pass


def test_an_address_of_version_6():
    with listener(Settings(engine_host="::1", engine_port=0)) as taken:
        assert url_of(taken) == f"http://[::1]:{taken.getsockname()[1]}"


def test_a_host_that_is_not_here():
    with (
        pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"),
        listener(Settings(engine_host="192.0.2.1")),
    ):
        pass


def test_a_unix_socket_is_for_owner_and_group_and_goes_away(tmp_path):
    path = tmp_path / "socket"
    with listener(Settings(engine_socket=path)) as taken:
        assert url_of(taken) == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


def test_a_left_over_socket_is_replaced_and_a_live_one_is_not(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    settings = Settings(engine_socket=path)
    with listener(settings) as taken:
        taken.listen()
        with pytest.raises(ConfigurationError, match="ENGINE_SOCKET"), listener(settings):
            pass
        assert path.exists()


def test_a_file_is_never_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with (
        pytest.raises(ConfigurationError, match="ENGINE_SOCKET"),
        listener(Settings(engine_socket=path)),
    ):
        pass
    assert path.read_text() == "precious"
