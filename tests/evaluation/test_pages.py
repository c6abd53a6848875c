"""Pages and columns."""

from trine.evaluation.pages import aligned, escaped, page


def test_text_is_escaped_and_html_is_not():
    found = page(title="a<b", kicker="c&d", name="<e>", head="<b>1</b>", body="<p>2</p>")
    for part in ("<title>a&lt;b</title>", "<p>c&amp;d</p>", "<h1>&lt;e&gt;</h1>", "<b>1</b>", "<p>2</p>"):
        assert part in found
    assert escaped(1.5) == "1.5"


def test_columns_are_as_wide_as_a_terminal_shows_them():
    lines = aligned([["이름", "n"], ["a", "100"]])
    assert lines == ["이름    n", "---------", "a     100"]
