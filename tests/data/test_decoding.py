import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.decoding import decode, detect, normalize_newlines, open_text
from trine.errors import DocumentError

SENTENCE = "연차휴가는 15일입니다."


@pytest.mark.parametrize(
    "text", ["안녕", "네.", "회의록", SENTENCE, "ㅋㅋㅋ 넵", "漢字 혼용 문장입니다", "① 1ㆍ2차 → 완료", "뷁펲 똠방각하"]
)
def test_one_sentence_of_cp949_is_read_right(text):
    assert decode(text.encode("cp949")) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "euc-kr"]
)
@pytest.mark.parametrize("text", [SENTENCE, "가격: 3,000원\n둘째 줄", "Hello 세계"])
def test_every_encoding_of_korean_files_is_told_apart(text, encoding):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("こんにちは。今日は雨です。", "euc_jp"),
        ("こんにちは。今日は雨です。", "shift_jis"),
        ("你好，我是学生。今天天气很好。", "gb18030"),
        ("我們是學生，今天天氣很好。", "big5"),
        ("Größe für Übung", "latin-1"),
        ("It’s “fine” – really", "cp1252"),
        ("Привет, как дела? Хорошо", "cp1251"),
    ],
)
def test_other_scripts_are_not_taken_for_korean(text, encoding):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "label", "codec"),
    [
        ("你好", "GB2312", "gb2312"),
        ("café résumé naïve", "iso-8859-1", "latin-1"),
        ("Привет", "KOI8-R", "koi8-r"),
        ("こんにちは", "ISO-2022-JP", "iso2022_jp"),
        ("쀍", "euc-kr", "cp949"),
    ],
)
def test_a_declared_charset_decides_what_bytes_leave_open(text, label, codec):
    assert decode(text.encode(codec), declared=label) == text


@pytest.mark.parametrize("label", ["euc-kr", "rot13", "zip", "no such charset", ""])
def test_a_wrong_declaration_does_not_win_over_the_bytes(label):
    assert decode(SENTENCE.encode(), declared=label) == SENTENCE


def test_newlines_become_lf_and_nothing_else_changes():
    decomposed = "가\u0301"
    assert decode(f"a\r\nb\rc\n\n{decomposed}\u2028\f".encode()) == f"a\nb\nc\n\n{decomposed}\u2028\f"


def test_nul_becomes_a_space_so_that_offsets_stay():
    assert decode("회의\0록은 다음과 같다 ".encode() * 3) == "회의 록은 다음과 같다 " * 3
    assert decode(b"log line one\0\0\0\0 and more ascii text after the gap") == (
        "log line one     and more ascii text after the gap"
    )


def test_a_few_damaged_bytes_do_not_turn_the_file_into_another_encoding():
    data = bytearray((SENTENCE * 40).encode())
    data[3] = 0xFF
    text = decode(bytes(data))
    assert text.count("\ufffd") <= 3
    assert text.endswith(SENTENCE * 30)


def test_stray_bytes_in_plain_ascii_and_stray_nul_in_cp949():
    assert decode(b"a log of plain words " * 10 + b"\xff")[:-1] == "a log of plain words " * 10
    assert decode((SENTENCE * 20).encode("cp949") + b"\0") == SENTENCE * 20 + " "


@pytest.mark.parametrize("seed", range(20))
def test_binary_data_is_refused(seed):
    with pytest.raises(DocumentError):
        decode(random.Random(seed).randbytes(4000))


def test_control_characters_are_refused():
    with pytest.raises(DocumentError, match="binary"):
        decode(b"\x01\x02\x03\x04 ab" * 50)


def test_empty_and_ascii():
    assert decode(b"") == ""
    assert decode(b"plain") == "plain"
    assert detect(b"plain") == "utf-8"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffd"), max_size=200))
def test_utf8_always_comes_back(text):
    assert decode(text.encode()) == text


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=8, max_size=60).filter(bool))
def test_common_hangul_in_cp949_always_comes_back(text):
    common = "".join(c for c in text if 0xB0 <= c.encode("cp949")[0] <= 0xC8 and c.encode("cp949")[1] >= 0xA1)
    assert decode((SENTENCE + common).encode("cp949")) == SENTENCE + common


@given(st.text("a\r\n", max_size=20))
def test_normalised_newlines_hold_no_cr(text):
    normal = normalize_newlines(text)
    assert "\r" not in normal
    assert normal.count("a") == text.count("a")
    assert normalize_newlines(normal) == normal


def test_open_text_looks_past_a_long_ascii_start():
    data = b"a,b\n" * 40_000 + f"{SENTENCE}\n".encode("cp949")
    with open_text(io.BytesIO(data), newline=None) as stream:
        assert list(stream)[-1] == SENTENCE + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_open_text_streams_every_encoding(encoding):
    with open_text(io.BytesIO(f"하나\n{SENTENCE}\n".encode(encoding)), newline=None) as stream:
        assert stream.read() == f"하나\n{SENTENCE}\n"


def test_open_text_marks_bytes_of_one_bad_row():
    data = f"{SENTENCE}\n".encode() * 50 + b"bad \xff row\n" + SENTENCE.encode()
    with open_text(io.BytesIO(data), newline=None) as stream:
        lines = list(stream)
    assert lines[50] == "bad \udcff row\n"
    assert lines[51] == SENTENCE
