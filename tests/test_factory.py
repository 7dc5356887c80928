import sys

import pytest

from penjing.errors import PenjingError
from penjing.factory import call_factory

SOURCE = """
import beside

class Net:
    @staticmethod
    def make():
        return "net"

value = 3

def model():
    return beside.answer()

def data():
    return Net

def needs(path):
    return path

def fails():
    raise ValueError("no weights\\nhere")

def deep():
    import json
    return json.loads("{")

def leaves():
    raise SystemExit(1)

def told():
    from penjing.errors import PenjingError
    raise PenjingError("my own words")
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("def answer():\n    return 42\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    yield tmp_path / "mine.py"
    for name in [name for name in sys.modules if name in ("beside", "mine") or name.startswith("_penjing_mine")]:
        del sys.modules[name]


def test_a_file_is_imported_with_what_lies_beside_it(file):
    before = list(sys.path)
    assert call_factory(f"{file}:model") == 42
    assert call_factory(f"{file}:Net.make") == "net"
    assert sys.path == before


def test_a_file_runs_once_until_it_changes(file):
    first = call_factory(f"{file}:data")
    assert call_factory(f"{file}:data") is first
    file.write_text(SOURCE.replace('"net"', '"other"'))
    assert call_factory(f"{file}:Net.make") == "other"


def test_a_module_in_the_current_folder_and_an_installed_one_are_found(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert call_factory("mine:model") == 42
    assert call_factory("collections:OrderedDict") == {}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("modle", "no 'modle' in .*mine.py.*Did you mean 'model'"),
        ("value", "is an int, not a function"),
        ("needs", r"without arguments \(missing a required argument: 'path'\)"),
        ("fails", r"raised ValueError: no weights \(.*mine\.py:21: raise ValueError"),
        ("deep", r"raised JSONDecodeError: .*mine\.py:25: return json\.loads"),
        ("leaves", "raised SystemExit"),
        ("told", "^my own words$"),
    ],
)
def test_a_function_that_gives_nothing_is_a_clear_error(file, name, says):
    with pytest.raises(PenjingError, match=says):
        call_factory(f"{file}:{name}")


def test_a_missing_file_or_module_gets_the_nearest_name(file, monkeypatch):
    with pytest.raises(PenjingError, match=r"no file .*nine\.py. Did you mean 'mine.py'"):
        call_factory(f"{file.parent}/nine.py:model")
    monkeypatch.chdir(file.parent)
    with pytest.raises(PenjingError, match=r"no module minee\. Did you mean 'mine'"):
        call_factory("minee:model")
    with pytest.raises(PenjingError, match=r"no module penjing\.zoom. Did you mean 'zoo'"):
        call_factory("penjing.zoom:resnet20")
    with pytest.raises(PenjingError, match=r"json\.decoder is not a package"):
        call_factory("json.decoder.x:model")
    with pytest.raises(PenjingError, match="neither a module's name nor a file"):
        call_factory("a-b:model")


def test_a_file_that_fails_while_imported_says_where(file):
    file.write_text("x = 1\nimport not_installed_here\n")
    with pytest.raises(PenjingError, match=r"ModuleNotFoundError.*mine\.py:2: import not_installed_here"):
        call_factory(f"{file}:model")
    file.write_text("def model(:\n")
    with pytest.raises(PenjingError, match=r"SyntaxError.*mine\.py:1: def model"):
        call_factory(f"{file}:model")


@pytest.mark.parametrize("spec", ["mine", "mine.py", ":model", "mine:"])
def test_text_without_both_parts_names_no_function(spec):
    with pytest.raises(PenjingError, match="names no function"):
        call_factory(spec)
