"""What is to be written, example by example: a sequence that the settings alone decide, however often it is run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trine.curation.synthesis.documents import Grounding
from trine.curation.synthesis.groups import GROUPS, PAPER_GROUPS, Group
from trine.curation.synthesis.language_check import guessed
from trine.curation.synthesis.languages import LANGUAGES, PAPER, Language, weights
from trine.curation.synthesis.templates import PROMPT_LANGUAGES, filled
from trine.errors import UsageError
from trine.tables import unknown

_SAME_LANGUAGE = {"en": "the language of the passage", "ko": "글과 같은 언어"}
_UNTITLED = {"en": "a document without a title", "ko": "제목이 없는 문서"}
TASKS_PER_CALL = 20


@dataclass(frozen=True, slots=True)
class Job:
    """One example to be written; of a passage, one for each of the group's fields."""

    number: int
    group: Group
    lang: str
    """Code of the query's language; "" where a passage does not tell."""
    target: str
    """Code of the second language of a translation; else ""."""
    prompts: str
    """Language of the prompt."""
    rank: int
    """Number among the jobs of its group and prompt language, which decides its task."""
    drawn: Mapping[str, str]
    """The values of the placeholders, but for the task."""
    grounding: Grounding | None = None

    def core(self, task: str) -> str:
        """The prompt without what asks for the form of the answer."""
        return filled(self.group.prompt, self.prompts, {**self.drawn, "task": task})

    @property
    def languages(self) -> tuple[Language | None, ...]:
        """Of each field; None where any will do."""
        first = LANGUAGES.get(self.lang)
        others = LANGUAGES[self.target] if self.target else first
        return (first, *(others for _ in self.group.fields[1:]))

    @property
    def language_label(self) -> str:
        """As `trine.types.Example.lang` has it."""
        return f"{self.lang}-{self.target}" if self.target else self.lang


@dataclass(frozen=True, slots=True)
class Mix:
    """What is written in which shares."""

    groups: Mapping[str, float]
    languages: Mapping[str, float]
    prompts: str = "auto"
    """"en", "ko", or "auto": Korean where the text is to be Korean, else English."""
    seed: int = 0


def mix_of(
    groups: Sequence[str], languages: Sequence[str], *, grounded: bool, prompts: str = "auto", seed: int = 0
) -> Mix:
    """Shares from ``name`` and ``name=share``.

    Without groups: those of the paper in its shares, or with documents queries for them. Without languages: English.
    The language "paper" stands for the paper's mix of 93.

    Raises:
        UsageError: an unknown name, a share that cannot be, or something that would have no effect.
    """
    if prompts != "auto" and prompts not in PROMPT_LANGUAGES:
        raise unknown(prompts, ("auto", *PROMPT_LANGUAGES), kind="language of prompts")
    names = list(groups) or (["grounded"] if grounded else list(PAPER_GROUPS))
    plain = all("=" not in name for name in names)
    shares = weights(names, GROUPS, kind="group")
    if plain:
        shares = {name: GROUPS[name].weight for name in shares}
    if ("grounded" in shares) != grounded:
        remedy = "give it --documents" if not grounded else "leave the documents out, or add --group grounded"
        raise UsageError(f"the group 'grounded' and documents belong together; {remedy}")
    if languages and set(shares) == {"grounded"}:
        raise UsageError("a language has no effect on the group 'grounded': queries are in the passage's own")
    spoken = dict(PAPER) if list(languages) == ["paper"] else weights(languages or ["en"], LANGUAGES, kind="language")
    if "bitext" in shares and set(spoken) == {"en"}:
        if groups:
            raise UsageError("bitext needs two languages; give --language twice, as in --language en --language ko")
        del shares["bitext"]
    return Mix(shares, spoken, prompts, seed)


class Plan:
    """Jobs in order; asked for more, it goes on where it stopped."""

    def __init__(self, mix: Mix, passages: Sequence[Grounding] = ()) -> None:
        """`passages` are used in a drawn order, each once."""
        self.mix = mix
        self._passages = random.Random(f"{mix.seed}/passages").sample(list(passages), len(passages))
        self._number = 0
        self._given: Counter[str] = Counter()
        self._ranks: Counter[tuple[str, str]] = Counter()

    def take(self, examples: int) -> list[Job]:
        """Jobs for so many examples; fewer where the passages are used up and nothing else is asked for."""
        jobs: list[Job] = []
        while examples > 0 and (group := self._next_group()) is not None:
            job = self._job(group)
            jobs.append(job)
            examples -= len(group.fields) if group.kind == "grounded" else 1
        return jobs

    def _next_group(self) -> Group | None:
        """The one that is furthest behind its share."""
        open_groups = [
            name
            for name in self.mix.groups
            if name != "grounded" or self._given[name] < len(self._passages) * len(GROUPS[name].fields)
        ]
        if not open_groups:
            return None
        return GROUPS[min(open_groups, key=lambda name: (self._given[name] + 0.5) / self.mix.groups[name])]

    def _job(self, group: Group) -> Job:
        number, draw = self._number, random.Random(f"{self.mix.seed}/{self._number}")
        self._number += 1
        grounding = None
        if group.kind == "grounded":
            grounding = self._passages[self._given[group.name] // len(group.fields)]
            self._given[group.name] += len(group.fields)
            lang, target = _language_of(grounding), ""
        else:
            self._given[group.name] += 1
            lang, target = self._languages(draw, two=group.kind == "bitext")
        prompts = self.mix.prompts
        if prompts == "auto":
            prompts = "ko" if lang == "ko" else "en"
        drawn = {name: draw.choice(options)[prompts] for name, options in group.choices.items()}
        drawn |= _named(lang, target, prompts) | _grounded(grounding, prompts)
        rank = self._ranks[group.name, prompts]
        self._ranks[group.name, prompts] += 1
        return Job(number, group, lang, target, prompts, rank, drawn, grounding)

    def _languages(self, draw: random.Random, *, two: bool) -> tuple[str, str]:
        codes, shares = list(self.mix.languages), list(self.mix.languages.values())
        first = draw.choices(codes, shares)[0]
        if not two:
            return first, ""
        if len(codes) == 1:
            # Only English has no partner, and `mix_of` refuses it: translations go both ways between it and English.
            return draw.choice([(first, "en"), ("en", first)])
        others = [(code, share) for code, share in zip(codes, shares, strict=True) if code != first]
        return first, draw.choices([code for code, _ in others], [share for _, share in others])[0]


def _named(lang: str, target: str, prompts: str) -> dict[str, str]:
    names = {"language": LANGUAGES[lang].names[prompts] if lang in LANGUAGES else _SAME_LANGUAGE[prompts]}
    return names | ({"target_language": LANGUAGES[target].names[prompts]} if target else {})


def _grounded(grounding: Grounding | None, prompts: str) -> dict[str, str]:
    if grounding is None:
        return {}
    return {"title": grounding.title or _UNTITLED[prompts], "passage": grounding.text}


def _language_of(grounding: Grounding) -> str:
    """What the document says, where the text does not belie it; else what its letters prove."""
    found = guessed(grounding.text)
    said = grounding.lang if grounding.lang in LANGUAGES else ""
    if found is not None and (not said or found.code in ("ko", "ja", "zh", "en")):
        return found.code
    return said
