"""Jobs and answers for tests."""

from trine.curation.synthesis.documents import Grounding
from trine.curation.synthesis.plan import Plan, mix_of
from trine.curation.synthesis.writing import Answer

LONG = (
    "파드는 하나 이상의 컨테이너를 담는 가장 작은 배포 단위이며 같은 노드 위에서 함께 실행되고 저장소와 네트워크를 "
    "나누어 쓴다. 수명은 짧고 언제든지 다시 만들어질 수 있다."
)
OTHER = (
    "노드는 파드가 실행되는 물리 또는 가상의 기계이며 제어부가 상태를 살피다가 고장이 나면 그 위의 파드를 다른 기계로 "
    "옮겨서 다시 시작하고 그 사실을 기록에 남겨 둔다."
)


def passage(text=LONG, *, title="파드", document="pod.md", lang="ko"):
    return Grounding(text, title, document, lang)


def job(group, *languages, seed=0, passages=()):
    """The first job of a group."""
    mix = mix_of([group], languages, grounded=bool(passages), seed=seed)
    return Plan(mix, passages).take(1)[0]


def answer(one, *texts, task="과제를 푼다."):
    return Answer(one, task, "the reply", dict(zip(one.group.fields, texts, strict=True)))
