"""What the README and the pages in docs/ tell a reader to type, run or parsed."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import tyro

import configs
from internal_rl.commands import main as cli
from internal_rl.commands.flags import flag

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Files of a user's; test_own_pages runs them.
TITLED = re.compile(r'^```python title="(\w+\.py)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


def blocks(page, *languages):
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def commands(page):
    """Command lines of the shell blocks, with continued lines joined and comments left out."""
    for block in blocks(page, "bash", "sh", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield words


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    """A folder with the files that pages show, which presets of the user's are in."""
    folder = tmp_path_factory.mktemp("own")
    for page in PAGES:
        for name, body in TITLED.findall(page.read_text()):
            (folder / name).write_text(body)
    return folder


def name_of(page):
    return str(page.relative_to(ROOT))


COMMANDS = [(name_of(page), words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks(p, "python") and not TITLED.search(p.read_text())],
    ids=name_of,
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """The blocks of one page, one after the other, in one namespace and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{name_of(page)}, python block {number}", "exec"), namespace)


@pytest.mark.parametrize(
    "words",
    [words for _, words in COMMANDS if words[0] == "internal-rl"],
    ids=" ".join,
)
def test_command_lines_parse(words, own_files, monkeypatch):
    monkeypatch.chdir(own_files)
    name, *flags = words[1:]
    if name in cli.FAMILIES:
        family = cli.module(name)
        assert flags[0] in family.COMMANDS, f"no command {name} {flags[0]}"
        if not {"--help", "-h"} & set(flags):
            family.parse(flags[0], flags[1:])
        return
    assert name in cli.COMMANDS, f"no command {name}"
    if flags in (["--help"], ["-h"]):
        return
    chosen = cli.module(name)
    preset = flag(flags, "preset")
    if preset:
        configs.get(preset)
    # Asking for help's defaults opens no run directory; those in the examples do not exist here.
    default = chosen.defaults([*flags, "--help"])
    args = tyro.cli(
        chosen.Command, args=flags, default=default, config=(tyro.conf.AvoidSubcommands,)
    )
    if not getattr(args, "resume", False):
        for parent in ("base", "parent"):
            if hasattr(args, parent):
                assert flag(flags, parent), f"--{parent} is missing"


@pytest.mark.parametrize(
    "target",
    sorted({word for _, words in COMMANDS if words[0] == "make" for word in words[1:2]}),
)
def test_make_targets_exist(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)


def test_scripts_exist(monkeypatch, capsys):
    helps = {}
    for page, words in COMMANDS:
        if words[0] not in ("python", ".venv/bin/python"):
            continue
        first = next(n for n, word in enumerate(words) if word.endswith(".py"))
        assert (ROOT / words[first]).is_file(), page
        command = tuple(word for word in words[first : first + 2] if not word.startswith("-"))
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            if command not in helps:
                helps[command] = _help(command, monkeypatch, capsys)
            assert option in helps[command], f"{page}: {option}"


def _help(command, monkeypatch, capsys):
    """In this process, because importing everything anew takes seconds; test_benchmark starts one for real."""
    script = ROOT / command[0]
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [*command, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s#]+)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("package", ["envs", "agents", "internal_rl", "configs", "scripts"])
def test_readme_names_every_module(package):
    tree = next(b for b in blocks(ROOT / "README.md", "") if "internal_rl/stages/\n" in b)
    listed, folder = set(), ""
    for line in tree.splitlines():
        if line.startswith(" "):
            listed.add(folder + line.split()[0])
        else:
            folder = line
    modules = (ROOT / package).rglob("*.py")
    found = {str(p.relative_to(ROOT)) for p in modules if p.name != "__init__.py"}
    assert found == {name for name in listed if name.startswith(f"{package}/")}


def test_there_is_something_to_check():
    assert blocks(ROOT / "README.md", "python")
    assert any(words[0] == "internal-rl" for _, words in COMMANDS)
    assert ["make", "demo"] in [words for _, words in COMMANDS]
