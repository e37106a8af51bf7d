import pytest

from bot.sandbox.links import WrongLink, checked, user_of


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("a.example", "http://a.example/"),
        ("HTTPS://A.Example:0443/X?y#z", "https://a.example:443/X?y#z"),
        ("a.example?q=1", "http://a.example/?q=1"),
        ("http://me:secret@a.example", "http://me:secret@a.example/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://ñandú.example/a b", "http://ñandú.example/a%20b"),
        ("mailto:ana@a.example", "http://mailto:ana@a.example/"),
        ("TG://user?id=7", "tg://user?id=7"),
        ("ton://transfer/x", "ton://transfer/x"),
    ],
)
def test_links(link: str, becomes: str):
    assert checked(link) == becomes


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("", "URL host is empty"),
        ("https:///x", "URL host is empty"),
        ("localhost", "Wrong HTTP URL"),
        ("ftp://a.example", "Unsupported URL protocol"),
        ("a.example:99999", "Wrong port number specified in the URL"),
        ("javascript:alert(1)", "Wrong port number specified in the URL"),
        ("a b.example", "Disallowed character in URL host"),
        ("http://[1::2::3]/", "Wrong IPv6 address specified in the URL"),
        ("tg://https://a.example", "Wrong tg URL"),
        ("tg://user:80?id=7", "Wrong tg URL"),
        ("tg://us.er?id=7", "Unallowed characters in URL host"),
    ],
)
def test_what_is_no_link(link: str, reason: str):
    with pytest.raises(WrongLink, match=reason):
        checked(link)


@pytest.mark.parametrize(
    ("link", "user_id"),
    [
        ("tg://user?id=7001", 7001),
        ("TG:user/?x=1&id=7001#f", 7001),
        ("tg://user?id=x", None),
        ("tg://users?id=1", None),
        ("https://user?id=1", None),
    ],
)
def test_links_to_people(link: str, user_id: int | None):
    assert user_of(link) == user_id
