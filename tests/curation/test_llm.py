import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from curation.synthesis.conftest import endpoint, no_key, serve, waits  # noqa: F401 -- fixtures
from curation.synthesis.server import HANG, RESET, error, reply
from trine.curation.llm import (
    CallFailed,
    Client,
    Endpoint,
    EndpointError,
    Reply,
    Request,
    Stopped,
    estimated_tokens,
    parsed_reply,
)
from trine.errors import UsageError

ASKED = Request(({"role": "user", "content": "안녕"},), fields=("refusal", "query"))


@pytest.fixture
def client(endpoint, waits):  # noqa: F811
    made = []

    def make(server, **options):
        made.append(Client(endpoint(server, **options), wait=waits.append))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_request_goes_out_as_the_protocol_has_it_and_comes_back(serve, client):  # noqa: F811
    server = serve(lambda number, body: reply('{"a": "가"}', usage=(7, 3)))
    found = client(server).complete(ASKED)
    assert (found.text, found.finish, found.input_tokens, found.output_tokens) == ('{"a": "가"}', "stop", 7, 3)
    assert found.counted
    assert found.tokens == 10
    body = server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "안녕"}]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("scripted", 1.0, 1.0, 2048)
    form = body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"] == {
        "type": "object",
        "properties": {"refusal": {"type": ["string", "null"]}, "query": {"type": "string"}},
        "required": ["refusal", "query"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(("format", "sent"), [("json_object", {"type": "json_object"}), ("prompt", None)])
def test_weaker_formats(serve, client, format, sent):  # noqa: F811
    server = serve()
    client(server).complete(Request(ASKED.messages, fields=("query",), format=format))
    assert server.bodies[0].get("response_format") == sent


def test_the_key_is_the_variables_and_local_servers_need_none(serve, client, monkeypatch):  # noqa: F811
    server = serve()
    client(server).complete(ASKED)
    monkeypatch.setenv("OPENAI_API_KEY", "usual")
    client(server).complete(ASKED)
    monkeypatch.setenv("OWN", "own")
    client(server, api_key_env="OWN").complete(ASKED)
    assert server.keys == ["Bearer no-key", "Bearer usual", "Bearer own"]
    with pytest.raises(UsageError, match="MISSING is not set"):
        client(server, api_key_env="MISSING")


def test_retry_after_is_obeyed_to_the_second(serve, client, waits):  # noqa: F811
    script = [
        error(429, "slow down", headers={"Retry-After": "7"}),
        error(503, "busy", headers={"retry-after-ms": "250"}),
    ]
    server = serve(lambda number, body: script[number - 1] if number <= 2 else None)
    one = client(server)
    assert one.complete(ASKED).finish == "stop"
    assert waits == [7.0, 0.25]
    assert one.traffic.retried == {"HTTP 429": 1, "HTTP 503": 1}
    assert one.traffic.sent == 3


def test_retry_after_may_be_a_date(serve, client, waits):  # noqa: F811
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server = serve(lambda number, body: error(429, "later", headers={"Retry-After": when}) if number == 1 else None)
    client(server).complete(ASKED)
    assert 80 < waits[0] <= 90


@pytest.mark.parametrize("outcome", [RESET, error(500, "oops"), error(408, "slow"), error(409, "clash")])
def test_what_passes_is_tried_again_with_growing_waits(serve, client, waits, outcome):  # noqa: F811
    server = serve(lambda number, body: outcome if number <= 3 else None)
    assert client(server).complete(ASKED).finish == "stop"
    for tried, seconds in enumerate(waits, start=1):
        assert 0.5 * 2**tried * 0.5 <= seconds <= 0.5 * 2**tried


def test_a_server_that_hangs_is_a_time_out(serve, client, waits):  # noqa: F811
    server = serve(lambda number, body: HANG if number == 1 else None)
    one = client(server, timeout=0.3)
    assert one.complete(ASKED).finish == "stop"
    assert one.traffic.retried == {"time-out": 1}


def test_a_call_fails_after_its_tries_and_says_so(serve, client, waits):  # noqa: F811
    server = serve(lambda number, body: error(502, "bad gateway"))
    with pytest.raises(CallFailed, match=r"in 3 tries, the last time: HTTP 502"):
        client(server, retries=2).complete(ASKED)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (error(401, "bad key"), "OPENAI_API_KEY"),
        (error(404, "no such model"), "'scripted' a model of it"),
        (error(400, "response_format json_schema is not supported"), "use --format json_object, or --format prompt"),
        (error(422, "unknown field"), "--format prompt"),
        (error(429, "you exceeded your quota", code="insufficient_quota"), "quota is used up"),
        (error(429, "tomorrow", headers={"Retry-After": "86400"}), "asks to wait 86400 s"),
    ],
)
def test_what_does_not_pass_ends_at_once_with_the_remedy(serve, client, waits, outcome, says):  # noqa: F811
    server = serve(lambda number, body: outcome)
    with pytest.raises(EndpointError, match=says) as caught:
        client(server).complete(ASKED)
    assert not isinstance(caught.value, CallFailed)
    assert waits == []
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("code", "finish"), [("content_filter", "content_filter"), ("context_length_exceeded", "context_length")]
)
def test_a_400_about_one_prompt_is_a_reply_without_text(serve, client, code, finish):  # noqa: F811
    server = serve(lambda number, body: error(400, "no", code=code))
    assert client(server).complete(ASKED) == Reply("", finish)


def test_the_limit_goes_under_the_name_that_the_model_knows(serve, client):  # noqa: F811
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server = serve(lambda number, body: error(400, said) if "max_tokens" in body else None)
    one = client(server)
    one.complete(ASKED)
    one.complete(ASKED)
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 2048, 2048]


def test_a_stopped_client_sends_nothing_and_wakes_up(serve, endpoint):  # noqa: F811
    server = serve(lambda number, body: error(429, "later", headers={"Retry-After": "500"}))
    one = Client(endpoint(server))
    threading.Timer(0.3, one.stop).start()
    with pytest.raises(Stopped):
        one.complete(ASKED)
    one.close()
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "body", ["", "<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": "a"}]}', "null"]
)
def test_whatever_was_paid_is_a_reply(body):
    found = parsed_reply(body, ASKED)
    assert (found.finish, found.text) == ("malformed", body)
    assert not found.counted


def test_tokens_that_nobody_counted_are_estimated():
    body = json.dumps({"choices": [{"message": {"content": "four" * 4}, "finish_reason": None}]})
    found = parsed_reply(body, ASKED)
    assert (found.finish, found.output_tokens, found.counted) == ("stop", 4, False)
    assert found.input_tokens == 2 + 8
    assert estimated_tokens("한글 ab") == 2 + 1


def test_the_key_of_a_request_holds_everything_that_decides_the_answer():
    key = ASKED.key("m")
    assert key == Request(({"content": "안녕", "role": "user"},), fields=("refusal", "query")).key("m")
    others = [
        ASKED.key("n"),
        Request(({"role": "user", "content": "안녕!"},), fields=ASKED.fields).key("m"),
        Request(ASKED.messages, fields=("query", "refusal")).key("m"),
        Request(ASKED.messages, fields=ASKED.fields, format="prompt").key("m"),
        Request(ASKED.messages, fields=ASKED.fields, temperature=0.5).key("m"),
        Request(ASKED.messages, fields=ASKED.fields, top_p=0.5).key("m"),
        Request(ASKED.messages, fields=ASKED.fields, max_tokens=9).key("m"),
        Request(ASKED.messages, fields=ASKED.fields, sample="2").key("m"),
    ]
    assert len({key, *others}) == 9


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("localhost:8000", {}, "http://localhost"),
        ("http://a/v1", {"timeout": 0}, "timeout 0"),
        ("http://a/v1", {"retries": -1}, "retries -1"),
    ],
)
def test_what_cannot_be_an_endpoint(url, options, says):
    with pytest.raises(UsageError, match=says):
        Endpoint(url, "m", **options)


def test_a_format_with_a_typo_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'json_schema'"):
        Request(ASKED.messages, format="json_shema")


def test_without_the_package_the_command_is_named(monkeypatch):
    from trine.errors import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"trine\[synthesis\]"):
        Client(Endpoint("http://a/v1", "m"))
