"""Chat completions from any OpenAI-compatible endpoint, by the official client (package extra "synthesis").

The client's own retries are off: here they are counted, wait as long as the server says, and can be interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event, Lock
from typing import Any, Literal

from trine.errors import TrineError, UsageError
from trine.tables import missing_extra, unknown

Format = Literal["json_schema", "json_object", "prompt"]
FORMATS: tuple[Format, ...] = ("json_schema", "json_object", "prompt")
"""How an endpoint is held to an object: by its schema, to be some JSON, or by nothing but the prompt."""

_NO_KEY = "no-key"
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 60.0
_PATIENCE = 600.0
"""Seconds; a server that asks to be left alone for longer ends the run instead."""
_UNPAID = {
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "context_length_exceeded": "context_length",
}
"""Codes of HTTP 400 that concern one prompt only, and the finish reasons that they become."""


class EndpointError(TrineError):
    """An endpoint that cannot be used; what it answered so far is kept."""


class CallFailed(EndpointError):
    """One call that did not come through, however often it was tried; the next may."""


class Stopped(Exception):
    """A call that was not made because the run is being stopped."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where completions come from, and with how much patience."""

    url: str
    """Up to and with "/v1"."""
    model: str
    api_key_env: str | None = None
    """Variable that holds the key and must be set; None takes OPENAI_API_KEY where it is set, and else no key."""
    timeout: float = 120
    """Seconds for one answer."""
    retries: int = 6
    """Further tries after a refused connection, a time-out, 408, 409, 429 or 5xx."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"the endpoint {self.url!r} is no address; write it as http://localhost:8000/v1")
        if not self.model:
            raise UsageError("the model has no name; give the one that the endpoint lists under /models")
        if not 0 < self.timeout < math.inf or self.retries < 0:
            raise UsageError(
                f"Endpoint has timeout {self.timeout} and retries {self.retries}; above 0 and at least 0 are needed"
            )

    def key(self) -> str:
        """The API key.

        Raises:
            UsageError: the variable that was named is not set.
        """
        found = os.environ.get(self.api_key_env or "OPENAI_API_KEY", "").strip()
        if self.api_key_env and not found:
            raise UsageError(f"the variable {self.api_key_env} is not set; put the endpoint's API key into it")
        return found or _NO_KEY


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides an answer."""

    messages: tuple[Mapping[str, str], ...]
    """{"role", "content"} each."""
    fields: tuple[str, ...] = ()
    """Texts of the object that must come back, in order; empty for free text. A field "refusal" may be null."""
    format: Format = "json_schema"
    """No effect on free text."""
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 2048
    """Of the answer."""
    sample: str = ""
    """Tells apart requests that are otherwise the same, of which each is to have an answer of its own."""

    def __post_init__(self) -> None:
        """Refuse an unknown format."""
        if self.format not in FORMATS:
            raise unknown(self.format, FORMATS, kind="answer format")

    def key(self, model: str) -> str:
        """Equal for equal requests to one model, on every machine."""
        text = json.dumps([model, asdict(self)], ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def parameters(self, model: str, *, limit: str = "max_tokens") -> dict[str, Any]:
        """What goes to the endpoint, with the limit of the answer under the name that it knows."""
        sent: dict[str, Any] = {
            "model": model,
            "messages": [dict(message) for message in self.messages],
            "temperature": self.temperature,
            "top_p": self.top_p,
            limit: self.max_tokens,
        }
        if self.fields and self.format != "prompt":
            sent["response_format"] = self._response_format()
        return sent

    def _response_format(self) -> dict[str, Any]:
        if self.format == "json_object":
            return {"type": "json_object"}
        schema = {
            "type": "object",
            "properties": {
                name: {"type": ["string", "null"] if name == "refusal" else "string"} for name in self.fields
            },
            "required": list(self.fields),
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, and what it cost."""

    text: str
    finish: str
    """"stop", "length", "content_filter", ... as the endpoint says it; "malformed" where the answer was no completion,
    "context_length" where the prompt was too long for the model."""
    refusal: str = ""
    """The endpoint's own field for a refusal."""
    input_tokens: int = 0
    output_tokens: int = 0
    counted: bool = True
    """False where the endpoint did not say how many tokens there were, and the numbers are estimates."""
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens


def estimated_tokens(text: str) -> int:
    """Tokens of a text where nobody counted: a quarter for each ASCII character, one for each other.

    Byte-pair vocabularies of multilingual models need fewer for Korean (0.5 to 0.8 a syllable), so this errs upwards.
    """
    ascii_count = sum(map(str.isascii, text))
    return math.ceil(ascii_count / 4) + len(text) - ascii_count


@dataclass(slots=True)
class Traffic:
    """Requests sent, answered or not."""

    sent: int = 0
    retried: dict[str, int] = field(default_factory=dict)
    """Reason -> tries that were repeated for it."""


class Client:
    """Sends requests, from any number of threads; every answer is a `Reply` or an error."""

    def __init__(self, endpoint: Endpoint, *, wait: Callable[[float], None] | None = None) -> None:
        """Make a client; nothing is sent.

        Args:
            endpoint: where to.
            wait: sleeps between tries; None waits until `stop` is called.

        Raises:
            MissingExtra: the package openai is not installed.
            UsageError: the variable of the key is not set.
        """
        try:
            import openai
        except ImportError as error:
            raise missing_extra("talking to an LLM", "synthesis") from error
        self.endpoint = endpoint
        self.traffic = Traffic()
        self._errors = openai
        self._openai = openai.OpenAI(
            base_url=endpoint.url, api_key=endpoint.key(), timeout=endpoint.timeout, max_retries=0
        )
        self._stop = Event()
        self._wait = wait or self._sleep
        self._lock = Lock()
        self._limit = "max_tokens"

    def stop(self) -> None:
        """Let calls in flight end, and make no other."""
        self._stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._openai.close()

    def complete(self, request: Request) -> Reply:
        """The answer to a request.

        Raises:
            EndpointError: the endpoint refuses such requests; the message says what it said and what to do.
            CallFailed: it did not answer, however often it was asked.
            Stopped: `stop` was called.
        """
        tried = 0
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return self._once(request)
            except self._errors.APIStatusError as error:
                if _is_unknown_limit(error, self._limit):
                    # Newer models of OpenAI take the limit under this name only; older servers know only the other.
                    self._limit = "max_completion_tokens"
                    continue
                unpaid = self._unpaid(error)
                if unpaid is not None:
                    return unpaid
                reason, asked = self._reason(error, request), _retry_after(error.response.headers)
            except self._errors.APIConnectionError as error:
                reason, asked = _connection_reason(error), None
            tried += 1
            if tried > self.endpoint.retries:
                raise CallFailed(
                    f"{self.endpoint.url} did not answer in {tried} tries, the last time: {reason}; the same command "
                    "goes on when it does"
                )
            self._pause(reason, asked, tried)

    def _once(self, request: Request) -> Reply:
        with self._lock:
            self.traffic.sent += 1
        started = time.monotonic()
        create: Any = self._openai.chat.completions.with_raw_response.create
        answer = create(**request.parameters(self.endpoint.model, limit=self._limit))
        return parsed_reply(answer.text, request, seconds=time.monotonic() - started)

    def _unpaid(self, error: Any) -> Reply | None:
        """A reply without text, where the error concerns this prompt and no other."""
        finish = _UNPAID.get(str(getattr(error, "code", "")))
        return Reply("", finish) if error.status_code == 400 and finish is not None else None

    def _reason(self, error: Any, request: Request) -> str:
        """Why to try again.

        Raises:
            EndpointError: there is no use in it.
        """
        status, said = error.status_code, _words(error)
        if status in (408, 409, 429) or status >= 500:
            if getattr(error, "code", None) == "insufficient_quota":
                raise EndpointError(f"{self.endpoint.url}: the quota is used up (HTTP {status}: {said})") from error
            return f"HTTP {status}"
        raise EndpointError(
            f"{self.endpoint.url} answers HTTP {status}: {said}{self._remedy(error, request)}"
        ) from error

    def _remedy(self, error: Any, request: Request) -> str:
        status = error.status_code
        if status in (401, 403):
            name = self.endpoint.api_key_env or "OPENAI_API_KEY"
            return f"; put a key that it accepts into the variable {name}, or name another with --api-key-env"
        if status == 404:
            return f"; is {self.endpoint.model!r} a model of it, and should the address end with /v1?"
        if status in (400, 422) and request.fields and request.format == "json_schema":
            return "; if it knows no JSON schemas (structured outputs), use --format json_object, or --format prompt"
        if status in (400, 422) and request.fields and request.format == "json_object":
            return "; if it knows no response_format, use --format prompt"
        return ""

    def _pause(self, reason: str, asked: float | None, tried: int) -> None:
        if asked is not None and asked > _PATIENCE:
            raise EndpointError(
                f"{self.endpoint.url} asks to wait {asked:.0f} s ({reason}); the same command goes on after that"
            )
        with self._lock:
            self.traffic.retried[reason] = self.traffic.retried.get(reason, 0) + 1
        # Half of the wait is drawn, so that calls that failed together do not come back together.
        backed_off = min(_LONGEST_WAIT, _FIRST_WAIT * 2**tried) * (0.5 + random.random() / 2)
        self._wait(backed_off if asked is None else asked)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)


def parsed_reply(body: str, request: Request, *, seconds: float = 0.0) -> Reply:
    """A chat completion as it came over the wire; whatever it is, it is a reply, for it was paid."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        reply = Reply(
            text=text if isinstance(text, str) else "",
            finish=str(choice.get("finish_reason") or "stop"),
            refusal=refusal if isinstance(refusal, str) else "",
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        reply, content = Reply(body[:10_000], "malformed"), {}
    return _with_usage(reply, content.get("usage"), request, seconds)


def _with_usage(reply: Reply, usage: Any, request: Request, seconds: float) -> Reply:
    said = usage if isinstance(usage, dict) else {}
    sent, back = said.get("prompt_tokens"), said.get("completion_tokens")
    if isinstance(sent, int) and isinstance(back, int) and min(sent, back) >= 0:
        return replace(reply, input_tokens=sent, output_tokens=back, seconds=seconds)
    sent, back = prompt_tokens(request.messages), estimated_tokens(reply.text)
    return replace(reply, input_tokens=sent, output_tokens=back, counted=False, seconds=seconds)


def prompt_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """Estimated tokens of a conversation, with a few for each turn."""
    return sum(estimated_tokens(message["content"]) + 8 for message in messages)


def _is_unknown_limit(error: Any, limit: str) -> bool:
    return error.status_code == 400 and limit == "max_tokens" and "max_completion_tokens" in _words(error)


def _connection_reason(error: Exception) -> str:
    import openai

    return "time-out" if isinstance(error, openai.APITimeoutError) else "connection failed"


def _words(error: Any) -> str:
    """What the server said, on one line."""
    body = getattr(error, "body", None)
    found = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(found or error).split())[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers ``retry-after-ms`` or ``Retry-After`` (seconds or a date, RFC 9110, 10.2.3)."""
    try:
        if (thousandths := headers.get("retry-after-ms")) is not None:
            seconds = float(thousandths) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value.strip().replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
