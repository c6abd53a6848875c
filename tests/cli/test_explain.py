import json

import pytest


def test_the_parts_add_up_to_the_scores(run):
    result = run("explain", "what holds containers", "A pod holds one or more containers.", "--json")
    found = json.loads(result.stdout)
    shares = sum(token["share"] for token in found["alignment"]["tokens"])
    assert shares == pytest.approx(found["scores"]["multi_vector"], abs=1e-5)
    assert sum(word["share"] for word in found["alignment"]["words"]) == pytest.approx(shares, abs=1e-9)
    assert sum(match["contribution"] for match in found["terms"]) == pytest.approx(found["scores"]["sparse"])
    weighted = sum(found["weights"][mode] * score for mode, score in found["scores"].items())
    assert found["weighted"] == pytest.approx(weighted)
    pairs = {token["query"]["text"]: token["passage"]["text"] for token in found["alignment"]["tokens"]}
    assert (pairs["holds"], pairs["containers"]) == ("holds", "containers")


@pytest.mark.parametrize("tokens", [[], ["--tokens"]])
def test_people_get_tables(run, tokens):
    shown = run("explain", "무엇이 컨테이너를 담나", "파드는 컨테이너를 담는다", *tokens).stdout
    assert "\x1b" not in shown
    row = next(line for line in shown.splitlines() if line.startswith("컨테이너를"))
    assert row.split()[:4] == ["컨테이너를", "컨테이너를", "1.000", "0.3333"]
    assert "sum" in shown


def test_texts_without_a_common_term(run):
    assert "the two share no term" in run("explain", "cats", "dogs").stdout


def test_a_hit_can_be_explained(run, collection):
    found = json.loads(run("explain", "what holds containers", "--rank", "1", "--json").stdout)
    assert (found["document"], found["line"], found["rank"]) == ("pod.md", 3, 1)
    assert found["text"] == "Pod\nA pod holds one or more containers."
    assert "pod.md:3" in run("explain", ".trine", "what holds containers", "--rank", "1").stdout


def test_a_rank_beyond_the_hits_is_not_found(run, collection):
    result = run("explain", "fish", "--rank", "99")
    assert result.exit_code == 4
    assert "found 4 passages" in result.stderr
    assert run("explain", "fish", "--rank", "0").exit_code == 2


def test_a_text_is_needed_without_a_rank(run):
    result = run("explain", "only a query")
    assert result.exit_code == 2
    assert "--rank 1" in result.stderr


def test_the_text_can_come_from_standard_input(run):
    found = json.loads(run("explain", "fish", "-", "--json", stdin="fish\nand chips").stdout)
    assert found["text"] == "fish\nand chips"


def test_a_page_can_be_written(run, home):
    run("explain", "fish", "<script>fish</script>", "--html", "why.html")
    page = (home / "why.html").read_text("utf-8")
    assert "Which words answer which" in page
    assert "&lt;" in page
    assert page.count("<script>") == 1


def test_a_script_that_the_model_never_saw_is_said(run):
    assert "english was not trained" in run("explain", "글", "글", "--model", "english").stderr
    assert run("explain", "a", "글", "--model", "english").stderr == ""


def test_untrained_modes_are_said(run):
    assert "without training" in run("explain", "a", "b", "--model", "untrained").stderr
    assert json.loads(run("explain", "a", "b", "--model", "untrained", "--json").stdout)["untrained"] == [
        "sparse",
        "multi_vector",
    ]
