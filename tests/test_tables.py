import pytest

from trine.errors import MissingExtra, UnknownName
from trine.tables import Row, missing_extra, resolve, unknown

TABLE = {
    "path": Row("os.path:join"),
    "optional": Row("no_such_package_at_all:thing", extra="documents"),
    "needed": Row("no_such_package_at_all:thing"),
    "wrong": Row("os.path:no_such_attribute"),
}


def test_entries_are_imported_on_demand():
    import os.path

    assert resolve(TABLE, "path", kind="part") is os.path.join


def test_typos_suggest_the_nearest():
    with pytest.raises(UnknownName) as caught:
        resolve(TABLE, "pathh", kind="part")
    assert str(caught.value) == ("no part called 'pathh'; did you mean 'path'? Known: needed, optional, path, wrong.")
    assert isinstance(caught.value, ValueError)


def test_nothing_is_suggested_where_nothing_is_near():
    assert str(unknown("zzz", ["dense"], kind="mode")) == "no mode called 'zzz'. Known: dense."
    assert str(unknown("검색", ["dense"], kind="mode")) == "no mode called '검색'. Known: dense."
    assert "Known: ." in str(unknown("a", [], kind="mode"))


@pytest.mark.parametrize("name", [None, 3, ("dense",)])
def test_names_that_are_no_strings(name):
    assert repr(name) in str(unknown(name, ["dense"], kind="mode"))


def test_a_missing_extra_says_the_command():
    with pytest.raises(
        MissingExtra, match="part 'optional' needs an optional package: pip install 'trine\\[documents\\]'"
    ):
        resolve(TABLE, "optional", kind="part")
    with pytest.raises(ImportError):
        resolve(TABLE, "optional", kind="part")
    assert str(missing_extra("the default model", "demo")).endswith("pip install 'trine[demo]'")


def test_a_failure_without_an_extra_is_not_dressed_up():
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all") as caught:
        resolve(TABLE, "needed", kind="part")
    assert not isinstance(caught.value, MissingExtra)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        resolve(TABLE, "wrong", kind="part")
