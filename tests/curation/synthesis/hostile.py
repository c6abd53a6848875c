"""A server that does everything wrong now and then, and remembers what it was paid for."""

import json
import threading

from curation.synthesis import server
from curation.synthesis.server import HANG, RESET, error, fields, good, is_brainstorm, reply


def changed(body, **values):
    return json.dumps({**json.loads(good(body)), **values}, ensure_ascii=False)


def first_text(body):
    return [name for name in fields(body) if name not in ("refusal", "observation", "phenomenon", "conclusion")][0]


SAME = server.sentence(True, 20, 1)
PAID = {
    "malformed JSON": lambda body: reply(good(body)[:-20]),
    "truncated": lambda body: reply(good(body)[:60], finish="length"),
    "refused": lambda body: reply(None, refusal="I can't help with that."),
    "refused in prose": lambda body: reply("죄송하지만 요청하신 글은 쓸 수 없습니다."),
    "refused in the form": lambda body: reply(changed(body, refusal="쓸 수 없는 내용입니다")),
    "filtered": lambda body: reply("", finish="content_filter"),
    "wrong language": lambda body: reply(changed(body, **{first_text(body): server.sentence(False, 20, 5)})),
    "duplicate": lambda body: reply(changed(body, **{first_text(body): SAME})),
    "missing key": lambda body: reply('{"refusal": null}'),
    "wrong type": lambda body: reply(changed(body, **{first_text(body): ["a"]})),
    "empty": lambda body: reply(""),
    "not a completion": lambda body: (200, {}, '{"error": "overloaded"}'),
    "not even JSON": lambda body: (200, {}, "<html>welcome</html>"),
    "no usage": lambda body: reply(good(body), usage=None),
    "a fence": lambda body: reply(f"```json\n{good(body)}\n```"),
    "a broken character": lambda body: reply(changed(body, **{first_text(body): "가\ud800나"})),
}
UNPAID = {
    "429": lambda body: error(429, "slow down", headers={"Retry-After": "3"}),
    "500": lambda body: error(500, "oops"),
    "503": lambda body: (503, {"Content-Type": "text/html"}, "<html>busy</html>"),
    "reset": lambda body: RESET,
    "hang": lambda body: HANG,
}


class Hostile:
    """Every third call goes wrong in the next of all ways; brainstorms only in those that are not paid."""

    def __init__(self):
        self.lock = threading.Lock()
        self.turn = 0
        self.used = []

    def __call__(self, number, body):
        with self.lock:
            if number % 3:
                return None
            ways = [*UNPAID, *PAID] if not is_brainstorm(body) else list(UNPAID)
            name = ways[self.turn % len(ways)]
            self.turn += 1
            self.used.append(name)
        return (UNPAID.get(name) or PAID[name])(body)
