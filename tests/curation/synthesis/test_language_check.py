import unicodedata

import pytest

from trine.curation.synthesis.language_check import guessed, is_in
from trine.curation.synthesis.languages import LANGUAGES

KOREAN = (
    "쿠버네티스에서 파드는 하나 이상의 컨테이너를 담는 가장 작은 배포 "
    "단위이며 같은 노드 위에서 함께 실행되고 저장소를 나누어 쓴다."
)
ENGLISH = (
    "A pod is the smallest unit that can be deployed, and it holds one or more containers which share the network and "
    "the storage of their node from the moment they start until they stop."
)
GERMAN = (
    "Ein Pod ist die kleinste Einheit, die ausgeliefert werden kann, und enthält einen oder mehrere Container, welche "
    "sich das Netz und den Speicher ihres Knotens teilen, solange sie laufen und bis sie wieder beendet werden."
)
JAPANESE = (
    "ポッドは一つ以上のコンテナを含む最小のデプロイ単位であり、同じノード"
    "の上で一緒に実行され、記憶域を共有します。起動から停止まで同じです。"
)
CHINESE = (
    "容器组是可以部署的最小单元，包含一个或多个容器，它们共享所在节点的网"
    "络和存储，从启动到停止都在同一个节点上运行，并由控制器负责管理和重启。"
)
RUSSIAN = (
    "Под является наименьшей единицей развертывания и содержит один или несколько контейнеров, которые делят сеть узла."
)
TEXTS = {"ko": KOREAN, "en": ENGLISH, "de": GERMAN, "ja": JAPANESE, "zh": CHINESE, "ru": RUSSIAN}


@pytest.mark.parametrize("code", TEXTS)
def test_each_is_in_its_own_language_and_in_no_other(code):
    assert [other for other in TEXTS if is_in(TEXTS[code], LANGUAGES[other])] == [code]


def test_decomposed_korean_is_korean():
    assert is_in(unicodedata.normalize("NFD", KOREAN), LANGUAGES["ko"])
    assert guessed(unicodedata.normalize("NFD", KOREAN)).code == "ko"


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("Kubernetes HPA 설정", "ko", True),
        ("kubectl delete pod", "ko", False),
        ("🙂 1234 !!!", "ko", True),
        ("", "en", True),
        ("東京 天気", "ja", True),  # too short to need kana
        ("天気はどうですか", "zh", False),
        ("Gehäuse aus Kupfer", "en", True),  # too short to tell Latin languages apart
        ("ｆｕｌｌ ｗｉｄｔｈ", "en", True),
        ("ﾎﾟｯﾄﾞは単位です", "ja", True),
        ("Београд је главни град", "sr", True),
        ("Beograd je glavni grad", "sr", True),
    ],
)
def test_short_and_odd_texts(text, code, expected):
    assert is_in(text, LANGUAGES[code]) is expected


def test_a_long_korean_text_may_hold_code():
    mixed = KOREAN + " 예: kubectl apply -f deployment.yaml && kubectl get pods --all-namespaces"
    assert is_in(mixed, LANGUAGES["ko"])
    assert not is_in("이것은 한국어: " + ENGLISH, LANGUAGES["ko"])


@pytest.mark.parametrize(
    ("text", "code"), [*((TEXTS[code], code) for code in ("ko", "en", "ja", "zh")), ("สวัสดีครับ ท่านผู้มีเกียรติ", "th")]
)
def test_what_the_letters_prove(text, code):
    assert guessed(text).code == code


@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, "12 345", ""])
def test_what_they_do_not(text):
    assert guessed(text) is None
