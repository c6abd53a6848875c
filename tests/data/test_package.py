import subprocess
import sys

import pytest

import trine.data


def test_every_public_name_resolves():
    assert {name: getattr(trine.data, name) for name in trine.data.__all__}
    assert set(trine.data.__all__) <= set(dir(trine.data))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(AttributeError, match="read_documents"):
        _ = trine.data.read_files


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import trine.data", {"numpy", "torch", "lxml", "charset_normalizer"}),
        ("from trine.data import read_documents", {"torch", "lxml", "trafilatura", "pypdfium2", "docx", "unhwp"}),
        ("from trine.data import chunk", {"torch", "transformers", "lxml"}),
    ],
)
def test_importing_loads_no_parser_and_no_torch(statement, absent):
    code = f"import sys\n{statement}\nprint(sorted({absent!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
