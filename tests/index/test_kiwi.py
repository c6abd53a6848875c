import threading
import unicodedata

import pytest

from trine.index.analysis import BigramAnalyzer
from trine.index.kiwi import KiwiAnalyzer

pytest.importorskip("kiwipiepy")


@pytest.fixture(scope="module")
def analyzer():
    return KiwiAnalyzer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("정보검색을 했다", ["정보", "검색", "정보검색", "하다"]),
        ("정보 검색을 만들었습니다", ["정보", "검색", "만들다"]),
        ("아름다운 꽃들이 피었다", ["꽃", "아름답다", "꽃들", "피다"]),
        ("", []),
        ("\ud800", []),
    ],
)
def test_content_morphemes(analyzer, text, expected):
    assert sorted(analyzer.terms(text)) == sorted(expected)


def test_particles_and_endings_make_no_difference(analyzer):
    stems = {"모델", "학습"}
    for text in ("모델을 학습", "모델의 학습은", "모델과 학습까지"):
        assert stems <= set(analyzer.terms(text))


def test_all_but_hangul_is_as_in_bigrams(analyzer):
    for text in ("snake_case IPv6 v1.2 C++", "東京タワー ไทย 🍎", "the patient's cats", "https://example.org/?q=1"):
        assert analyzer.terms(text) == BigramAnalyzer().terms(text)
    assert {"ipv6", "v1.2", "지원"} <= set(analyzer.terms("IPv6와 v1.2를 지원한다"))


def test_hangul_that_kiwi_takes_for_a_sign_is_kept(analyzer):
    assert {"대한", "민국", "여행"} <= set(analyzer.terms("#대한민국여행"))
    assert "경로" in analyzer.terms("https://example.kr/경로")
    assert analyzer.terms("ㅋㅋㅋ")


def test_decomposed_hangul_gives_the_same_terms(analyzer):
    text = "대한민국 헌법은 국민의 자유를 보장한다 ＡＢＣ"
    assert analyzer.terms(unicodedata.normalize("NFD", text)) == analyzer.terms(text)


def test_kiwi_is_not_loaded_for_text_without_hangul():
    analyzer = KiwiAnalyzer()
    assert analyzer.terms("no Korean here") == ["no", "korean", "here"]
    assert analyzer._kiwi is None


def test_several_threads_get_what_one_gets(analyzer):
    texts = [f"제{number}조 국가는 국민의 권리를 보호하고 {number}개의 의무를 진다" for number in range(40)]
    expected = [analyzer.terms(text) for text in texts]
    wrong = []

    def work(first):
        for offset in range(len(texts)):
            number = (first + offset) % len(texts)
            if analyzer.terms(texts[number]) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 13, 26)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_fingerprint_names_the_version_of_kiwi(analyzer):
    import kiwipiepy

    assert analyzer.fingerprint == "kiwi-1-" + ".".join(kiwipiepy.__version__.split(".")[:2])
