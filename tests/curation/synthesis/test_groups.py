import pytest

from trine.curation.synthesis.groups import GROUPS, PAPER_GROUPS
from trine.curation.synthesis.templates import PROMPT_LANGUAGES, placeholders


def test_the_papers_groups_counts_and_keys():
    assert {name: GROUPS[name].weight for name in PAPER_GROUPS} == {
        "short-long": 167,
        "long-short": 122,
        "short-short": 13,
        "long-long": 17,
        "sts": 99,
        "bitext": 89,
    }
    assert GROUPS["short-long"].fields == ("user_query", "positive_document", "hard_negative_document")
    assert GROUPS["long-short"].fields == ("input_text", "label", "misleading_label")
    assert GROUPS["sts"].fields == GROUPS["bitext"].fields == ("S1", "S2", "S3")
    assert GROUPS["short-short"].fields == GROUPS["long-long"].fields == ("input", "positive_document")


def test_the_papers_placeholders():
    values = {
        name: {key: [words["en"] for words in options] for key, options in group.choices.items()}
        for name, group in GROUPS.items()
    }
    assert values["short-long"]["num_words"] == ["50", "100", "200", "300", "400", "500"]
    assert values["short-long"]["query_type"] == ["extremely long-tail", "long-tail", "common"]
    assert values["short-long"]["difficulty"] == ["high school", "college", "PhD"]
    assert len(values["short-long"]["clarity"]) == len(values["short-long"]["query_length"]) == 3
    assert len(values["long-short"]["num_words"]) == 5
    assert values["sts"]["low_score"] == ["2.5", "3", "3.5"]
    assert values["bitext"]["low_score"] == ["1.5", "2", "2.5"]
    assert values["sts"]["high_score"] == values["bitext"]["high_score"] == ["4", "4.5", "5"]
    assert values["sts"]["unit"] == ["sentence", "phrase", "passage"]


@pytest.mark.parametrize("name", GROUPS)
def test_steps_and_sides(name):
    group = GROUPS[name]
    assert group.two_step == (name in ("short-long", "long-short", "short-short", "long-long"))
    assert group.symmetric == (name in ("sts", "bitext"))
    assert set(group.long_fields) <= set(group.fields)


@pytest.mark.parametrize("language", PROMPT_LANGUAGES)
@pytest.mark.parametrize("name", GROUPS)
def test_prompts_use_every_value_that_is_drawn_and_no_other(name, language):
    group = GROUPS[name]
    given = set(group.choices) | {"language"}
    given |= {"task"} if group.two_step else set()
    given |= {"target_language"} if group.kind == "bitext" else set()
    given |= {"title", "passage"} if group.kind == "grounded" else set()
    assert placeholders(group.prompt, language) == given
    for options in group.choices.values():
        assert all(words[language] for words in options)
