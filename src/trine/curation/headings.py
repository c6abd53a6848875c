"""Which headings can stand for their section as a query, and which say nothing without their document's title."""

from __future__ import annotations

import re

from trine.curation.sections import bare
from trine.curation.texts import canonical

_ENGLISH = """
about, abstract, advantages, appendix, background, basics, benefits, changelog, conclusion, conclusions, configuration,
contents, definition, description, details, discussion, documentation, example, examples, faq, features,
further reading, general, getting started, help, install, installation, introduction, license, links, more, next steps,
note, notes, options, other, overview, parameters, prerequisites, references, related, requirements, resources,
results, return value, see also, setup, summary, syntax, table of contents, tips, tutorial, usage, what's next
"""
_KOREAN = """
개요, 소개, 정의, 설명, 배경, 목차, 목적, 요약, 결론, 참고, 참고 문헌, 참고 자료, 관련 항목, 관련 문서, 같이 보기,
예, 예시, 예제, 사용법, 사용 방법, 사용 예, 설치, 설정, 구성, 특징, 장점, 단점, 장단점, 기능, 주의, 주의 사항, 비고,
기타, 요구 사항, 필수 조건, 전제 조건, 다음 단계, 매개 변수, 반환 값, 구문, 자세한 내용, 추가 정보, 들어가며,
마치며, 서론, 본론, 머리말, 맺음말, 정리, 자주 묻는 질문
"""
_OTHER = "概要, はじめに, まとめ, 目次, 参考, 例, 简介, 概述, 目录, 总结, 参考资料"

GENERIC = frozenset(canonical(heading).replace(" ", "") for heading in ",".join([_ENGLISH, _KOREAN, _OTHER]).split(","))
"""Headings that say nothing alone, in canonical spelling without spaces."""

_NUMBERING = re.compile(r"^(?:\d+(?:\.\d+)*[.)]|[IVX]+\.|[가나다라마바사아자차카타파하][.)]|[①-⑳])\s+")


def is_generic(heading: str) -> bool:
    """Whether a heading is in `GENERIC`, whatever its numbering, spaces and final colon."""
    return canonical(unnumbered(heading)).rstrip(":.!").replace(" ", "") in GENERIC


def unnumbered(heading: str) -> str:
    """A heading without markup, and without "1.", "2.3)", "IV." or "가." in front of it.

    A number without a dot or bracket behind it stays, since "3 ways to", "2.0 release" and "제3조" mean it.
    """
    return _NUMBERING.sub("", bare(heading)).strip() or heading.strip()
