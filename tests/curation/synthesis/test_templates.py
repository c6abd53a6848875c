from importlib.resources import files

import pytest

from trine.curation.synthesis.templates import PROMPT_LANGUAGES, filled, placeholders, template
from trine.errors import UsageError

NAMES = {
    language: {file.name for file in (files("trine.curation.synthesis") / "prompts" / language).iterdir()}
    for language in PROMPT_LANGUAGES
}


def test_every_prompt_exists_in_every_language_with_the_same_placeholders():
    assert NAMES["en"] == NAMES["ko"]
    for file in NAMES["en"]:
        name = file.removesuffix(".md")
        assert placeholders(name, "en") == placeholders(name, "ko"), name


@pytest.mark.parametrize("file", sorted(NAMES["ko"]))
def test_korean_prompts_are_korean_and_english_ones_english(file):
    name = file.removesuffix(".md")
    assert not any("가" <= letter <= "힣" for letter in template(name, "en"))
    assert sum("가" <= letter <= "힣" for letter in template(name, "ko")) > 60


def test_braces_in_a_value_stay_as_they_are():
    passage = 'func main() { fmt.Println("{title}") } {passage}'
    values = {"title": "t", "passage": passage, "language": "English", "difficulty": "college"}
    assert passage in filled("example-grounded", "en", values)


def test_a_missing_value_is_named():
    with pytest.raises(UsageError, match=r"ko/think\.md asks for words"):
        filled("think", "ko", {})
