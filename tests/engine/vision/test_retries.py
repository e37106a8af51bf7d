import httpx
import pytest

from engine.vision.retries import Passing, Retries, require_ok


class Server:
    """Answers with what it is given, one after the other; a fault is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def __call__(self, request):
        answer = self.answers.pop(0)
        if isinstance(answer, type):
            raise answer("no answer", request=request)
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        return httpx.Response(status, headers=headers)


def asked(*answers, **options):
    """The status that asking comes to, and the pauses."""
    pauses, server = [], Server(*answers)
    retries = Retries(pause=pauses.append, **({"draw": lambda: 1.0} | options))

    def ask():
        with client.stream("GET", "http://weights.example/") as response:
            require_ok(response)
            return response.status_code

    with httpx.Client(transport=httpx.MockTransport(server)) as client:
        try:
            return retries.run(ask), pauses
        except (Passing, httpx.HTTPError) as fault:
            assert not server.answers
            return type(fault), pauses


def test_pauses_grow():
    assert asked(503, 429, httpx.ReadError, 200) == (200, [1.0, 2.0, 4.0])


def test_pauses_are_drawn_from_half_of_that_to_all_of_it():
    assert asked(500, 500, 500, 200, draw=lambda: 0.0) == (200, [0.5, 1.0, 2.0])


def test_it_is_asked_a_few_times_and_no_more():
    assert asked(500, 502, 503, 504) == (Passing, [1.0, 2.0, 4.0])
    assert asked(*[httpx.ReadTimeout] * 4) == (httpx.ReadTimeout, [1.0, 2.0, 4.0])


@pytest.mark.parametrize("fault", [400, 403, 404, 410, httpx.ConnectError, httpx.ConnectTimeout])
def test_what_does_not_pass_is_told_at_once(fault):
    assert asked(fault)[1] == []


def test_the_server_may_say_when():
    later = (429, {"Retry-After": "7"})
    assert asked(later, 200, draw=lambda: 0.0) == (200, [7.0])
    assert asked(later, 200) == (200, [8.75])


def test_but_not_for_ever():
    assert asked((503, {"Retry-After": "3600"})) == (Passing, [])
    assert asked((429, {"Retry-After": "9" * 400})) == (Passing, [])


@pytest.mark.parametrize("said", ["soon", "-5", "1e3", "٣", "Wed, 21 Oct 2037 07:28:00 GMT"])
def test_what_is_no_number_of_seconds_is_not_heeded(said):
    answer = (503, [(b"Retry-After", said.encode())])
    assert asked(answer, 200) == (200, [1.0])
