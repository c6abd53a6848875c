"""A small domain in two languages: headings are English, passages Korean, and each concept has one word in both.

Which word means which is nowhere said; only training on the documents tells. Documents combine the concepts anew.
"""

import random
from itertools import combinations

CONCEPTS = [
    ("search", "검색"),
    ("index", "인덱스"),
    ("database", "데이터베이스"),
    ("world", "세계"),
    ("engine", "엔진"),
    ("documents", "문서"),
    ("kernel", "메모리"),
    ("token", "벡터"),
    ("fox", "지하철"),
    ("deadlock", "교착"),
    ("attention", "임베딩"),
    ("machine", "서울"),
]


def write(folder, *, documents=28, sections=4, seed=0):
    """Markdown files with a title and headings of three English words, over paragraphs of the same Korean ones."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    subjects = list(combinations(range(len(CONCEPTS)), 3))
    draw.shuffle(subjects)
    for number in range(documents):
        own = subjects[number * (sections + 1) : (number + 1) * (sections + 1)]
        lines = [f"# {heading(own[0])}", "", paragraph(own[0], draw), ""]
        for subject in own[1:]:
            lines += [f"## {heading(subject)}", "", paragraph(subject, draw), ""]
        (folder / f"글 {number}.md").write_text("\n".join(lines), encoding="utf-8")
    return folder


def heading(subject):
    """The English words."""
    return " ".join(CONCEPTS[one][0] for one in subject)


def paragraph(subject, draw):
    """The Korean words, six times in any order."""
    words = [CONCEPTS[one][1] for one in subject] * 6
    draw.shuffle(words)
    return " ".join(words) + "."
