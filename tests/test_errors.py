import inspect
import re

import pytest

import trine
from trine import errors


def classes():
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def test_one_tree():
    for error in classes().values():
        assert issubclass(error, errors.TrineError)
        assert error.__doc__
    assert trine.TrineError is errors.TrineError


def test_the_tree_in_the_docstring_is_the_tree():
    """Each name there, indented one step further than its parent."""
    stack, drawn = [], {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│├└─ ]*)([A-Z]\w+)", line)
        if found and found.group(2) in classes():
            depth = len(found.group(1)) // 4
            stack[depth:] = [found.group(2)]
            drawn[found.group(2)] = stack[depth - 1] if depth else None
    assert set(drawn) == set(classes())
    for name, parent in drawn.items():
        assert parent is None or parent in [base.__name__ for base in classes()[name].__bases__]


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(errors.UsageError, ValueError), (errors.UnknownName, ValueError), (errors.MissingExtra, ImportError)],
)
def test_errors_are_also_what_python_calls_them(error, builtin):
    assert issubclass(error, builtin)


def test_the_message_is_all_there_is_to_show():
    assert str(errors.CheckpointError("폴더: 없음")) == "폴더: 없음"
