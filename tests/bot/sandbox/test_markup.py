import pytest

from bot.sandbox.errors import ApiError
from bot.sandbox.markup import rich_text, utf16_length

ANA = {"id": 7001, "is_bot": False, "first_name": "Ana"}


def users(user_id: int) -> dict | None:
    return ANA if user_id == ANA["id"] else None


def entity(kind: str, offset: int, length: int, **more: object) -> dict:
    return {"type": kind, "offset": offset, "length": length, **more}


@pytest.mark.parametrize(
    ("source", "text", "entities"),
    [
        ("plain &amp; &#60;simple&gt; &nbsp;", "plain & <simple> &nbsp;", []),
        ("<b>a<i>b</i></b>", "ab", [entity("bold", 0, 2), entity("italic", 1, 1)]),
        ("🙂<u>x</u>", "🙂x", [entity("underline", 2, 1)]),
        ("  <b> a</b> ", "a", [entity("bold", 0, 1)]),
        ("<b></b>x", "x", []),
        (
            '<a href="https://a.example/?x=1&amp;y=2">link</a>',
            "link",
            [entity("text_link", 0, 4, url="https://a.example/?x=1&y=2")],
        ),
        ('<a href="javascript:alert(1)">no</a>', "no", []),
        ('<a href="http://localhost/">no</a>', "no", []),
        ('<a href="t.me/x">in</a>', "in", [entity("text_link", 0, 2, url="http://t.me/x")]),
        (
            "to <a>a.example</a>",
            "to a.example",
            [entity("text_link", 3, 9, url="http://a.example/")],
        ),
        (
            '<b>b</b> <a href="tg://user?id=7001">Ana</a>',
            "b Ana",
            [entity("bold", 0, 1), entity("text_mention", 2, 3, user=ANA)],
        ),
        ('<a href="tg://user?id=1">nobody</a>', "nobody", []),
        (
            '<pre><code class="language-python">x = 1</code></pre>',
            "x = 1",
            [entity("pre", 0, 5, language="python")],
        ),
        ('<span class="tg-spoiler">x</span>', "x", [entity("spoiler", 0, 1)]),
        ("<blockquote expandable>x</blockquote>", "x", [entity("expandable_blockquote", 0, 1)]),
        ("/start@some_bot now", "/start@some_bot now", [entity("bot_command", 0, 15)]),
        (
            "see https://a.example/b, @somebody #día",
            "see https://a.example/b, @somebody #día",
            [entity("url", 4, 19), entity("mention", 25, 9), entity("hashtag", 35, 4)],
        ),
        ("<code>/start</code> 1/2", "/start 1/2", [entity("code", 0, 6)]),
    ],
)
def test_html(source: str, text: str, entities: list[dict]):
    assert rich_text(source, parse_mode="HTML", users=users) == (text, entities)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("a < b", "Unsupported start tag at byte offset 2"),
        ("<img src=x>", 'Unsupported start tag "img"'),
        ("<b>x", "Can't find end tag"),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("<b><i>é</b></i>", 'byte offset 8, expected "</i>", found "</b>"'),
        ("<span>x</span>", "must have class"),
    ],
)
def test_broken_html(source: str, complaint: str):
    with pytest.raises(ApiError) as refusal:
        rich_text(source, parse_mode="HTML", users=users)
    assert refusal.value.description.startswith("Bad Request: can't parse entities: ")
    assert complaint in refusal.value.description


def test_given_entities_are_trimmed_with_the_text():
    given = [entity("bold", 0, 3), entity("italic", 4, 99)]
    text, entities = rich_text("  ab cd", parse_mode=None, entities=given, users=users)
    assert (text, entities) == ("ab cd", [entity("bold", 0, 1), entity("italic", 2, 3)])


def test_given_links_are_checked():
    given = [entity("text_link", 0, 1, url="t.me/x")]
    _, entities = rich_text("a", parse_mode=None, entities=given, users=users)
    assert entities == [entity("text_link", 0, 1, url="http://t.me/x")]
    given = [entity("text_link", 0, 1, url="localhost")]
    with pytest.raises(ApiError) as refusal:
        rich_text("a", parse_mode=None, entities=given, users=users)
    assert refusal.value.description == (
        "Bad Request: wrong message entity: URL 'localhost' is invalid: Wrong HTTP URL"
    )


def test_a_given_mention_is_of_somebody_the_bot_knows():
    given = [
        entity("text_mention", 0, 1, user={"id": 7001}),
        entity("text_mention", 2, 1, user={"id": 1}),
    ]
    _, entities = rich_text("a b", parse_mode=None, entities=given, users=users)
    assert entities == [entity("text_mention", 0, 1, user=ANA)]


def test_utf16():
    assert [utf16_length(text) for text in ("", "é", "🙂", "👩‍🚀")] == [0, 1, 2, 5]
