"""Languages to write in: their names, their writing systems, and how often E5-Mistral's authors drew them.

Source: E5-Mistral, arXiv 2401.00368, figure 2; the list is that of XLM-R, arXiv 1911.02116, appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from trine.errors import UsageError
from trine.tables import unknown

_ROWS = """
af Afrikaans 아프리칸스어 LATIN | am Amharic 암하라어 ETHIOPIC | ar Arabic 아랍어 ARABIC
as Assamese 아삼어 BENGALI | az Azerbaijani 아제르바이잔어 LATIN | be Belarusian 벨라루스어 CYRILLIC
bg Bulgarian 불가리아어 CYRILLIC | bn Bengali 벵골어 BENGALI | br Breton 브르타뉴어 LATIN
bs Bosnian 보스니아어 LATIN,CYRILLIC | ca Catalan 카탈루냐어 LATIN | cs Czech 체코어 LATIN | cy Welsh 웨일스어 LATIN
da Danish 덴마크어 LATIN | de German 독일어 LATIN | el Greek 그리스어 GREEK | en English 영어 LATIN
eo Esperanto 에스페란토 LATIN | es Spanish 스페인어 LATIN | et Estonian 에스토니아어 LATIN
eu Basque 바스크어 LATIN | fa Persian 페르시아어 ARABIC | fi Finnish 핀란드어 LATIN | fr French 프랑스어 LATIN
fy Frisian 프리지아어 LATIN | ga Irish 아일랜드어 LATIN | gd Scottish_Gaelic 스코틀랜드_게일어 LATIN
gl Galician 갈리시아어 LATIN | gu Gujarati 구자라트어 GUJARATI | ha Hausa 하우사어 LATIN | he Hebrew 히브리어 HEBREW
hi Hindi 힌디어 DEVANAGARI | hr Croatian 크로아티아어 LATIN | hu Hungarian 헝가리어 LATIN
hy Armenian 아르메니아어 ARMENIAN | id Indonesian 인도네시아어 LATIN | is Icelandic 아이슬란드어 LATIN
it Italian 이탈리아어 LATIN | ja Japanese 일본어 HIRAGANA,KATAKANA,KATAKANA-HIRAGANA,CJK | jv Javanese 자바어 LATIN
ka Georgian 조지아어 GEORGIAN | kk Kazakh 카자흐어 CYRILLIC,LATIN | km Khmer 크메르어 KHMER
kn Kannada 칸나다어 KANNADA | ko Korean 한국어 HANGUL | ku Kurdish 쿠르드어 LATIN,ARABIC
ky Kyrgyz 키르기스어 CYRILLIC | la Latin 라틴어 LATIN | lo Lao 라오어 LAO | lt Lithuanian 리투아니아어 LATIN
lv Latvian 라트비아어 LATIN | mg Malagasy 말라가시어 LATIN | mk Macedonian 마케도니아어 CYRILLIC
ml Malayalam 말라얄람어 MALAYALAM | mn Mongolian 몽골어 CYRILLIC | mr Marathi 마라티어 DEVANAGARI
ms Malay 말레이어 LATIN | my Burmese 미얀마어 MYANMAR | ne Nepali 네팔어 DEVANAGARI | nl Dutch 네덜란드어 LATIN
no Norwegian 노르웨이어 LATIN | om Oromo 오로모어 LATIN | or Odia 오리야어 ORIYA | pa Punjabi 펀자브어 GURMUKHI
pl Polish 폴란드어 LATIN | ps Pashto 파슈토어 ARABIC | pt Portuguese 포르투갈어 LATIN | ro Romanian 루마니아어 LATIN
ru Russian 러시아어 CYRILLIC | sa Sanskrit 산스크리트어 DEVANAGARI | sd Sindhi 신드어 ARABIC
si Sinhala 싱할라어 SINHALA | sk Slovak 슬로바키아어 LATIN | sl Slovenian 슬로베니아어 LATIN
so Somali 소말리아어 LATIN | sq Albanian 알바니아어 LATIN | sr Serbian 세르비아어 CYRILLIC,LATIN
su Sundanese 순다어 LATIN | sv Swedish 스웨덴어 LATIN | sw Swahili 스와힐리어 LATIN | ta Tamil 타밀어 TAMIL
te Telugu 텔루구어 TELUGU | th Thai 태국어 THAI | tl Tagalog 타갈로그어 LATIN | tr Turkish 튀르키예어 LATIN
ug Uyghur 위구르어 ARABIC | uk Ukrainian 우크라이나어 CYRILLIC | ur Urdu 우르두어 ARABIC
uz Uzbek 우즈베크어 LATIN,CYRILLIC | vi Vietnamese 베트남어 LATIN | xh Xhosa 코사어 LATIN
yi Yiddish 이디시어 HEBREW | zh Chinese 중국어 CJK
"""


@dataclass(frozen=True, slots=True)
class Language:
    """A language that texts can be asked for in."""

    code: str
    """ISO 639-1."""
    names: Mapping[str, str]
    """In the languages that there are prompts in: "en", "ko"."""
    scripts: tuple[str, ...]
    """As `trine.models.scripts.script` names them."""


def _language(row: str) -> Language:
    code, english, korean, scripts = row.split()
    names = {"en": english.replace("_", " "), "ko": korean.replace("_", " ")}
    return Language(code, MappingProxyType(names), tuple(scripts.split(",")))


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {row.split()[0]: _language(row) for row in re.split(r"\s*[|\n]\s*", _ROWS.strip())}
)
"""Code -> language: the 93 of XLM-R."""

_NAMED = {"en": 43.1, "pl": 3.0}
_NAMED |= dict.fromkeys(("ja", "it", "ru", "id", "de", "fa"), 2.9)
_NAMED |= dict.fromkeys(("es", "zh", "fr", "pt", "nl"), 2.8) | {"ar": 2.7}
_REST = 19.8
PAPER: Mapping[str, float] = MappingProxyType(
    {code: _NAMED.get(code, _REST / (len(LANGUAGES) - len(_NAMED))) for code in LANGUAGES}
)
"""Per cent of the examples; of the languages that the paper counts as "others", an equal part of their 19.8."""


def language(code: str) -> Language:
    """The language of a code.

    Raises:
        UnknownName: there is none in `LANGUAGES`.
    """
    if code not in LANGUAGES:
        raise unknown(code, LANGUAGES, kind="language")
    return LANGUAGES[code]


def weights(given: Collection[str], known: Collection[str], *, kind: str) -> dict[str, float]:
    """Names with the share that each is to have, from ``name`` (share 1) and ``name=share``.

    Raises:
        UsageError: an unknown name, one that is given twice, or a share that is not above 0.
    """
    shares: dict[str, float] = {}
    for part in given:
        name, equals, share = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise unknown(name, known, kind=kind)
        if name in shares:
            raise UsageError(f"{kind} {name!r} is given twice; give each once, as in {name}=2")
        try:
            shares[name] = float(share) if equals else 1.0
        except ValueError:
            shares[name] = 0.0
        if not 0 < shares[name] < 1e9:
            raise UsageError(f"{part!r} gives {kind} {name!r} no share above 0; write {name}=0.5, or {name} alone")
    return shares
