import pytest

from trine.curation.synthesis.languages import LANGUAGES, PAPER, language, weights
from trine.errors import UnknownName, UsageError


def test_the_papers_mix():
    assert len(LANGUAGES) == 93
    assert sum(PAPER.values()) == pytest.approx(100)
    assert (PAPER["en"], PAPER["pl"], PAPER["ja"], PAPER["zh"], PAPER["ar"]) == (43.1, 3.0, 2.9, 2.8, 2.7)
    others = [share for share in PAPER.values() if share < 2.7]
    assert len(others) == 79
    assert sum(others) == pytest.approx(19.8)
    assert min(PAPER.values()) > 0


def test_every_language_has_names_and_scripts():
    import unicodedata

    known = {unicodedata.name(chr(code), "").partition(" ")[0] for code in range(0x10000)}
    for code, row in LANGUAGES.items():
        assert row.code == code
        assert set(row.names) == {"en", "ko"}
        assert row.names["en"].isascii()
        assert all("가" <= letter <= "힣" or letter == " " for letter in row.names["ko"])
        assert set(row.scripts) <= known
    assert len({row.names["ko"] for row in LANGUAGES.values()}) == 93
    assert language("gd").names == {"en": "Scottish Gaelic", "ko": "스코틀랜드 게일어"}
    assert language("ko").scripts == ("HANGUL",)


def test_shares():
    assert weights(["ko=0.7", "en = 0.3", "ja"], LANGUAGES, kind="language") == {"ko": 0.7, "en": 0.3, "ja": 1.0}


@pytest.mark.parametrize("part", ["ko=0", "ko=-1", "ko=much", "ko=nan", "ko=inf", "ko="])
def test_a_share_that_is_none(part):
    with pytest.raises(UsageError, match="no share above 0"):
        weights([part], LANGUAGES, kind="language")


def test_names_given_wrongly():
    with pytest.raises(UsageError, match="given twice"):
        weights(["ko", "ko=2"], LANGUAGES, kind="language")
    with pytest.raises(UnknownName, match="no language called 'kr'"):
        weights(["kr"], LANGUAGES, kind="language")
    with pytest.raises(UnknownName):
        language("xx")
