"""A server that speaks the chat-completions protocol, by a script: good answers, and every way in which they fail."""

import itertools
import json
import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENGLISH = [
    "river",
    "copper",
    "lantern",
    "orchard",
    "ferry",
    "marble",
    "violin",
    "harbour",
    "thistle",
    "kettle",
    "glacier",
]
KOREAN = [
    "나루",
    "구리",
    "등불",
    "과수원",
    "나룻배",
    "대리석",
    "바이올린",
    "항구",
    "주전자",
    "빙하",
    "안장",
    "후추",
    "소금",
]
_numbers = itertools.count(1)


def sentence(korean, words, number):
    """Words at random, and some that hold the sentences of one language together."""
    draw = random.Random(number)
    chosen = [draw.choice(KOREAN if korean else ENGLISH) for _ in range(words)]
    if korean:
        return (
            " ".join(f"{word}{draw.choice(['는', '를', '에서', '와'])}" for word in chosen) + f" {number}번 이야기다."
        )
    return " ".join(f"the {word} {draw.choice(['of', 'and', 'with'])}" for word in chosen) + f" story {number}."


def is_korean(body):
    return any("가" <= letter <= "힣" for letter in body["messages"][0]["content"])


def texts(body, number):
    """Valid texts for whatever the schema asks for."""
    korean = is_korean(body)
    lengths = {"label": 1, "misleading_label": 1, "keywords": 3, "user_query": 5, "question": 6, "claim": 6}
    found = {}
    for place, name in enumerate(fields(body)):
        spoken = in_korean(body, name) if name in ("S1", "S2", "S3") else korean
        found[name] = None if name == "refusal" else sentence(spoken, lengths.get(name, 14), number * 50 + place)
    return found


def in_korean(body, name):
    """Whether a side of a translation is to be Korean; of other groups, whether the prompt is."""
    prompt = body["messages"][0]["content"]
    if "translation" not in prompt and "번역인" not in prompt:
        return is_korean(body)
    line = next(line for line in prompt.splitlines() if line.startswith(f"- {'S1' if name == 'S1' else 'S2'}:"))
    return "Korean" in line or "한국어" in line


def fields(body):
    form = body.get("response_format")
    if form and form["type"] == "json_schema":
        return form["json_schema"]["schema"]["required"]
    last = body["messages"][-1]["content"]
    listed = next((line for line in last.splitlines() if '"refusal"' in line), "")
    names = [part for part in listed.split('"')[1::2]]
    return list(dict.fromkeys(names))


def is_brainstorm(body):
    return (
        len(body["messages"]) == 1
        and not fields(body)
        and ("one task per line" in content(body) or "한 줄에" in content(body))
    )


def content(body):
    return body["messages"][-1]["content"]


def good(body):
    """What a willing model says."""
    number = next(_numbers)
    if is_brainstorm(body):
        korean = is_korean(body)
        return "\n".join(f"{place + 1}. {sentence(korean, 5, number * 50 + place)}" for place in range(20))
    if not fields(body):
        return sentence(is_korean(body), 8, number)
    return json.dumps(texts(body, number), ensure_ascii=False)


def reply(text, *, finish="stop", refusal=None, usage=(100, 50)):
    """A completion as OpenAI sends it."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
    }
    if usage is not None:
        sent, back = usage
        body["usage"] = {"prompt_tokens": sent, "completion_tokens": back, "total_tokens": sent + back}
    return 200, {}, json.dumps(body, ensure_ascii=False)


def error(status, message, *, code=None, headers=None):
    """An error as OpenAI sends it."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return status, headers or {}, json.dumps(body)


RESET, HANG = "reset", "hang"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    @property
    def scripted(self):
        return self.server.scripted

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send(*error(404, f"no {self.path}"))
            return
        number = self.scripted.enter(body, self.headers.get("Authorization"))
        try:
            time.sleep(self.scripted.delay)
            self.answer(self.scripted.script(number, body) or reply(good(body)))
        finally:
            self.scripted.leave()

    def answer(self, outcome):
        if outcome in (RESET, HANG):
            self.close_connection = True
            if outcome == HANG:
                self.scripted.released.wait(30)
            else:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            return
        status, headers, text = outcome
        if status == 200:
            self.scripted.pay()
        self.send(status, headers, text)

    def send(self, status, headers, text):
        data = text.encode("utf-8", "surrogatepass")
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, address):
        pass


class Scripted:
    """The server in a thread. `script(number, body)` gives a reply, an error, RESET or HANG; None is a good answer."""

    def __init__(self, script=lambda number, body: None, *, delay=0.0):
        self.script, self.delay = script, delay
        self.bodies, self.keys, self.paid = [], [], 0
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.scripted = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def enter(self, body, key):
        with self._lock:
            self.bodies.append(body)
            self.keys.append(key)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return len(self.bodies)

    def pay(self):
        with self._lock:
            self.paid += 1

    def leave(self):
        with self._lock:
            self._at_once -= 1

    def close(self):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
