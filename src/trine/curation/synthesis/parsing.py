"""Replies to texts: what is not a whole answer is turned down with a reason, and nothing is mended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trine.curation.llm import Reply
from trine.curation.synthesis.modes import REFUSAL
from trine.curation.texts import canonical

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""What local reasoning models put in front of their answer."""
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•·]|\(?\d{1,3}[.):])\s*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FINISHES = {
    "length": "truncated",
    "content_filter": "filtered",
    "malformed": "malformed response",
    "context_length": "prompt too long",
}
_SORRY = re.compile(
    r"(?:I['’]?m|I am) (?:very )?sorry,? (?:but )?I (?:can(?:['’]t|not)|am (?:not able|unable))|"
    r"I (?:can(?:['’]t|not)|am unable to|won['’]t) (?:assist|help|comply|fulfil|create|provide|write|generate)|"
    r"As an AI|죄송(?:하지만|합니다만|합니다)[,.]? (?:저는 |그 |해당 |이 |그런 )?(?:요청|내용|글|예시)|"
    r"(?:요청하신|해당) (?:내용|요청|글|예시)[은는을를]? (?:작성|도와|제공|생성)",
    re.IGNORECASE,
)
LEAST_TASK, MOST_TASK = 10, 400
"""Characters of a task's sentence (`canonical`)."""


class Rejected(Exception):
    """A reply, or a text of it, that is no example."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`reason` is counted, `detail` stands beside the reply."""
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def whole_text(reply: Reply) -> str:
    """The text of a reply that came to its end.

    Raises:
        Rejected: it did not, or is a refusal, or there is none.
    """
    if reply.refusal:
        raise Rejected("refused", reply.refusal)
    if reply.finish in _FINISHES:
        raise Rejected(_FINISHES[reply.finish])
    text = _THOUGHT.sub("", reply.text).strip()
    if not text:
        raise Rejected("empty")
    return text


def payload(reply: Reply, fields: Sequence[str]) -> dict[str, str]:
    """The texts of an answer, in the order of `fields`.

    The object may stand in a fenced block or among other words; keys that nobody asked for are left out.

    Raises:
        Rejected: refused, cut off, no object, a text missing or of another type.
    """
    found = _object(whole_text(reply))
    refusal = found.get(REFUSAL)
    if isinstance(refusal, str) and refusal.strip().lower() not in ("", "null", "none"):
        raise Rejected("refused", refusal)
    return {name: _text(found, name) for name in fields}


def _object(text: str) -> Mapping[str, Any]:
    """The first JSON object of a text.

    Raises:
        Rejected: there is none, or it breaks off.
    """
    decoder = json.JSONDecoder()
    fenced = _FENCE.search(text)
    if fenced and not text.startswith("{"):
        text = fenced[1]
    start = text.find("{")
    if start < 0:
        raise Rejected("refused" if _SORRY.search(text[:200]) else "no JSON object", text[:200])
    try:
        found, _ = decoder.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise Rejected("malformed JSON", str(error)) from None
    if not isinstance(found, dict):  # pragma: no cover -- what begins with a brace is an object or an error
        raise Rejected("no JSON object")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    if name not in found:
        raise Rejected("missing key", name)
    value = found[name]
    if not isinstance(value, str):
        raise Rejected("wrong type", f"{name}: {type(value).__name__}")
    stripped = value.strip()
    if not stripped or canonical(stripped) in ("", canonical(name), "string", "null", "..."):
        raise Rejected("empty text", name)
    if "\ufffd" in stripped or _SURROGATE.search(stripped):
        raise Rejected("broken characters", f"{name}: {stripped[:80]!r}")
    if _SORRY.match(stripped):
        raise Rejected("refused", f"{name}: {stripped[:200]}")
    return stripped


def tasks(reply: Reply) -> list[str]:
    """The tasks of a brainstorm, one a line, each once; numbers, dashes and quotes around them are taken off.

    Raises:
        Rejected: the reply is no whole answer, or no line of it can be a task.
    """
    text = whole_text(reply)
    listed = _listed(text)
    lines = text.splitlines() if listed is None else listed
    found = {canonical(line): line for line in map(_bare, lines) if LEAST_TASK <= len(canonical(line)) <= MOST_TASK}
    kept = [line for line in found.values() if not _SORRY.match(line) and not line.endswith((":", "："))]
    if not kept:
        raise Rejected("refused" if _SORRY.search(text[:200]) else "no tasks", text[:200])
    return kept


def _listed(text: str) -> list[str] | None:
    """The texts of a JSON list, which some models write whatever they are asked for."""
    fenced = _FENCE.search(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict) and len(found) == 1:
        found = next(iter(found.values()))
    return [part for part in found if isinstance(part, str)] if isinstance(found, list) else None


def _bare(line: str) -> str:
    return " ".join(_BULLET.sub("", line).split()).strip("\"'“”`*")
