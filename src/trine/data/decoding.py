"""Bytes of unknown encoding -> text.

One rule for newlines: CRLF and a lone CR become LF. Nothing else is rewritten (no Unicode normalisation), except that
NUL, which no text needs and databases cut at, becomes a space. Offsets count code points of that text.
"""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from typing import BinaryIO

from trine.errors import DocumentError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 64 * 1024
_NON_ASCII = re.compile(rb"[\x80-\xff]")
_NON_ASCII_RUN = re.compile(rb"[\x80-\xff]+")
_CONTROL = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd]")
_MOST_DAMAGE = 0.02
"""Share of undecodable or control characters above which bytes are not taken for text."""

_PAIR = re.compile(
    rb"(?P<hangul>[\xb0-\xc8][\xa1-\xfe]|\xa4[\xa1\xa7\xbb\xbe\xcc\xd0\xfd])|(?P<kana>[\xa4\xa5][\xa1-\xf6])"
    rb"|(?P<symbol>[\xa1-\xa3\xa6-\xac][\xa1-\xfe])"
    rb"|(?P<other>[\x81-\xfe][\x41-\x5a\x61-\x7a\x81-\xfe])|(?P<broken>[\x80-\xff])"
)
"""Two-byte characters by their row: Hangul of KS X 1001 (rows 16 to 40; of row 4 the ㄱㄷㅋㅎㅜㅠ of chats, in EUC-JP
rare hiragana, and the middle dot), kana of EUC-JP (rows 4 and 5), symbols (in both), the rest, and single bytes."""
_LEAST_KANA = 0.3
_LEAST_HANGUL = 0.65
_FEW_NULS = 0.2

_LABELS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "ksc5601": "cp949",
    "windows-949": "cp949",
    "cp949": "cp949",
    "uhc": "cp949",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "windows-31j": "cp932",
    "euc-jp": "euc_jp",
    "iso-2022-jp": "iso2022_jp",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "us-ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "koi8-r": "koi8_r",
    "koi8-u": "koi8_u",
    **{f"windows-125{digit}": f"cp125{digit}" for digit in range(9)},
    **{f"iso-8859-{part}": f"iso8859_{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)},
}
"""Charset labels that a page may declare -> codec; a closed list, because Python's own includes zip and rot13."""


def decode(data: bytes, *, declared: str | None = None) -> str:
    """The text of `data`; `declared` is the charset label that the source gives for itself, if any.

    Tried in this order: byte order mark, UTF-16 without one, UTF-8, the declared charset, CP949 (which contains
    EUC-KR), then charset-normalizer. Up to 2 % damaged characters become U+FFFD.

    Raises:
        DocumentError: the bytes are not text, or in no encoding that can be told.
    """
    encoding = detect(data, declared=declared)
    text = data.decode(encoding, "replace")
    sample = text[: 16 * _SAMPLE]
    damage = sum(1 for _ in _CONTROL.finditer(sample))
    if damage > _MOST_DAMAGE * len(sample):
        raise DocumentError(f"looks like binary data: {damage} of {len(sample)} characters are not printable")
    return normalize_newlines(text).replace("\0", " ")


def normalize_newlines(text: str) -> str:
    """CRLF and CR as LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def detect(data: bytes, *, declared: str | None = None) -> str:
    """Name of the Python codec that reads `data`; see `decode` for the order of the attempts.

    Raises:
        DocumentError: no encoding fits.
    """
    for bom, name in _BOMS:
        if data.startswith(bom):
            return name
    if b"\0" in data[:_SAMPLE]:
        return _utf16_or_damaged(data[:_SAMPLE])
    label = _LABELS.get((declared or "").strip().lower(), "")
    if label == "iso2022_jp":
        return label
    if _is_utf8(data):
        return "utf-8"
    first = _NON_ASCII.search(data)
    sample = data[first.start() : first.start() + _SAMPLE] if first else data
    if label and _decodes(sample, label):
        return label
    return _east_asian(sample) or _guess(data[max(first.start() - 1000, 0) if first else 0 :][:_SAMPLE])


def open_text(stream: BinaryIO, *, newline: str | None) -> io.TextIOWrapper:
    """A text view of a stream for reading row by row; only a window around the first non-ASCII byte decides.

    Undecodable bytes come out as lone surrogates (U+DC80 to U+DCFF), so that one bad row can be told from the rest.

    Raises:
        DocumentError: no encoding fits.
    """
    window = stream.read(_SAMPLE)
    has_bom = any(window.startswith(bom) for bom, _ in _BOMS)
    while not has_bom and not _NON_ASCII.search(window) and b"\0" not in window:
        following = stream.read(_SAMPLE)
        if not following:
            break
        window = following
    window += stream.read(_SAMPLE)
    encoding = detect(window)
    stream.seek(0)
    errors = "replace" if encoding.startswith("utf-16") or encoding.startswith("utf-32") else "surrogateescape"
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=newline)


def _is_utf8(data: bytes) -> bool:
    """Whether all but a few of the non-ASCII bytes form UTF-8; a sequence cut off at the end does not count."""
    decoder = codecs.getincrementaldecoder("utf-8")
    try:
        decoder("strict").decode(data)
    except UnicodeDecodeError:
        damage = decoder("replace").decode(data).count("\ufffd") - data.count(b"\xef\xbf\xbd")
        bytes_not_ascii = sum(len(run) for run in _NON_ASCII_RUN.findall(data))
        return damage <= _MOST_DAMAGE * bytes_not_ascii
    return True


def _east_asian(sample: bytes) -> str:
    """CP949 or EUC-JP, where the rows that the two-byte characters lie in tell; else nothing.

    Korean is Hangul nearly throughout. Chinese in GB 2312 shares the byte ranges but spreads over rows 16 to 87 (about
    four in ten characters fall among the first 25), and Western text leaves single bytes over.
    """
    counts = dict.fromkeys(_PAIR.groupindex, 0)
    for match in _PAIR.finditer(sample):
        counts[str(match.lastgroup)] += 1
    letters = counts["hangul"] + counts["kana"] + counts["other"]
    total = letters + counts["symbol"] + counts["broken"]
    if counts["broken"] > max(1 if total > 20 else 0, _MOST_DAMAGE * total):
        return ""
    if total and counts["hangul"] >= _LEAST_HANGUL * letters:
        return "cp949"
    return "euc_jp" if counts["kana"] > _LEAST_KANA * letters and _decodes(sample, "euc_jp") else ""


def _utf16_or_damaged(sample: bytes) -> str:
    """Encoding of bytes that contain NUL: UTF-16 without a mark if that reads well, else UTF-8 with stray NULs.

    In UTF-16 each ASCII character holds a NUL; where they are few, the rest is Korean or Chinese, and no UTF-8.
    """
    if sample.count(b"\0") < _FEW_NULS * len(sample) and _is_utf8(sample.replace(b"\0", b" ")):
        return "utf-8"
    even = sample[: len(sample) // 2 * 2]
    best, most_ascii = "", 0
    for name in ("utf-16-le", "utf-16-be"):
        text = even.decode(name, "replace")
        ascii_letters = sum(character in "\t\n\r" or " " <= character <= "~" for character in text)
        if ascii_letters > most_ascii and _is_assigned(text):
            best, most_ascii = name, ascii_letters
    if best:
        return best
    if sample.count(b"\0") > _MOST_DAMAGE * len(sample):
        raise DocumentError(f"looks like binary data: {sample.count(0)} of {len(sample)} bytes are NUL")
    return detect(sample.replace(b"\0", b" "))


def _is_assigned(text: str) -> bool:
    """Whether nearly all characters are ones that text is made of."""
    odd = sum(
        unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and character not in "\t\n\r\f\v\x1b"
        for character in text
    )
    return odd + text.count("\ufffd") <= _MOST_DAMAGE * len(text)


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)("strict").decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def _guess(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    # Without NUL bytes it is no UTF-16 or UTF-32, which charset-normalizer would see in any short even run of bytes.
    best = from_bytes(sample, cp_exclusion=["utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_7"]).best()
    if best is not None:
        return best.encoding
    if sum(map(len, _NON_ASCII_RUN.findall(sample))) <= _MOST_DAMAGE * len(sample):
        return "utf-8"
    raise DocumentError("is in no encoding that can be told; save it as UTF-8")
