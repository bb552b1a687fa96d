"""Objects of a user's own files."""

import sys

import pytest

from agents.references import blaming, is_reference, load, load_function


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Thing:\n    size: int = 3\n"
        "def shorter(text, by=1): return text[by:]\n"
        "NUMBER = 7\n"
    )
    return path


def test_a_file_is_run_once(file):
    thing = load(f"{file}:Thing")
    assert thing().size == 3
    assert load(f"{file}:Thing") is thing
    assert load(f"{file}:NUMBER") == 7


def test_relative_to_the_working_folder(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert load("mine.py:Thing") is load(f"{file}:Thing")


def test_files_of_one_name_stay_apart(file, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("NUMBER = 8\n")
    assert load(f"{tmp_path}/other/mine.py:NUMBER") == 8
    assert load(f"{file}:NUMBER") == 7


def test_an_installed_module():
    import json.decoder

    assert load("json.decoder:JSONDecoder") is json.decoder.JSONDecoder
    assert is_reference("json.decoder:JSONDecoder")
    assert not is_reference("chicken")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.py:Thing", "no file .*nowhere.py; allowed"),
        ("{file}:Thong", "has no 'Thong'; it has NUMBER, Thing, dataclass, shorter"),
        ("{file}:", "names no object; allowed"),
        ("{file}:two words", "names no object; allowed"),
        (":Thing", "names no object; allowed"),
        ("no.such.module:Thing", "no module 'no.such.module'; allowed"),
        ("not a module:Thing", "'not a module' is no module"),
    ],
)
def test_what_names_nothing(file, reference, message):
    with pytest.raises(ValueError, match=message):
        load(reference.format(file=file))


def test_a_file_may_import_its_neighbours(file):
    (file.parent / "other.py").write_text("from mine import NUMBER\n")
    before = list(sys.path)
    assert load(f"{file.parent}/other.py:NUMBER") == 7
    assert sys.path == before


def test_errors_of_the_file_say_where(tmp_path, monkeypatch):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_library\n")
    for _ in range(2):  # the second time, too: no half-made module is kept
        with pytest.raises(ValueError, match=r"broken.py, line 1 in .*ModuleNotFoundError: No mod"):
            load(f"{path}:Thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load("broken:Thing")
    assert "broken" not in sys.modules


def test_only_errors_from_the_file_are_blamed_on_it(file):
    shorter = load(f"{file}:shorter")
    message = r"mine.py, line 5 in shorter: TypeError: .*subscriptable"
    with pytest.raises(ValueError, match=message), blaming(f"{file}:shorter"):
        shorter(3)
    with pytest.raises(TypeError), blaming(f"{file}:shorter"):
        len(3)


def test_functions_are_asked_what_they_take(file):
    assert load_function(f"{file}:shorter", "abc", by=2)("abc", by=2) == "c"
    with pytest.raises(ValueError, match=r"cannot be called as \(text, to=…\).*'to'"):
        load_function(f"{file}:shorter", "text", to=2)
    with pytest.raises(ValueError, match=r"cannot be called as \(text\).*not a callable"):
        load_function(f"{file}:NUMBER", "text")
