import json

import pytest

from trine.cli.output import Output, console, dumps


def test_json_is_strict_and_keeps_text_as_it_is():
    assert dumps({"이름": "🙂"}) == '{"이름": "🙂"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"score": float("nan")})


def test_documents_and_lines_go_to_standard_output(capsys):
    output = Output(json=True)
    output.line({"a": 1})
    output.document({"b": [1, 2]})
    shown = capsys.readouterr()
    first, rest = shown.out.split("\n", 1)
    assert json.loads(first) == {"a": 1}
    assert json.loads(rest) == {"b": [1, 2]}
    assert shown.err == ""


def test_notes_go_to_standard_error_and_quiet_hides_them(capsys):
    Output().note("[bold]seen[/bold]")
    Output(quiet=True).note("hidden")
    Output(quiet=True).warn("kept")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "[bold]seen[/bold]\nnote: kept\n"


def test_no_bar_and_no_colour_without_a_terminal(capsys):
    assert not Output().progress
    with Output().bar("work") as progress:
        progress(1, 2)
    console().print("red", style="red")
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "\x1b" not in shown.out


def test_a_page_is_written_whole_into_a_new_folder(tmp_path, capsys):
    Output(quiet=True).page(tmp_path / "a" / "b.html", "<p>글</p>")
    assert (tmp_path / "a" / "b.html").read_text("utf-8") == "<p>글</p>"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.html"]
