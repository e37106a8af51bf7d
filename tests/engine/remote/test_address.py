import pytest

from engine.remote.address import Address


@pytest.mark.parametrize(
    ("text", "base_url", "socket"),
    [
        ("http://127.0.0.1:8008", "http://127.0.0.1:8008", None),
        ("http://[::1]:8008/", "http://[::1]:8008", None),
        ("https://example.org/engine/", "https://example.org/engine", None),
        ("unix:/run/engine.sock", "http://engine", "/run/engine.sock"),
        ("unix:run/engine.sock", "http://engine", "run/engine.sock"),
    ],
)
def test_addresses(text: str, base_url: str, socket: str | None) -> None:
    address = Address.parse(text)
    assert (address.name, address.base_url, address.socket) == (text, base_url, socket)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "engine:8008",
        "127.0.0.1:8008",
        "ftp://engine",
        "http://",
        "http://:8008",
        "http://engine:port",
        "http://engine:99999",
        "http://engine:0",
        "http://engine/?key=1",
        "http://engine/#here",
        "http://en gine",
        "http://engine\n",
        "http://[::1",
        "unix:",
        "unix:/a\0b",
    ],
)
def test_what_is_none_is_told_what_one_is(text: str) -> None:
    with pytest.raises(ValueError, match="must be http://host:port, https://host or unix:/path"):
        Address.parse(text)


def test_a_password_has_no_place_in_one() -> None:
    with pytest.raises(ValueError, match="ENGINE_API_KEY") as caught:
        Address.parse("http://ana:hunter2@engine")
    assert "hunter2" not in str(caught.value)
