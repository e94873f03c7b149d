"""The pages under docs/: one for every verb, and no option on them that its verb does not have."""

import importlib
import re
import runpy
from pathlib import Path

import pytest
import typer.main

from agentlab.cli import app as cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "README.md"])
COMMAND = re.compile(r"agentlab ((?:[a-z]+ ?)+)([^`\n│]*)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")
FOREIGN = re.compile(
    r"^\W*(?:\w+=\S+ )*(?:\S*python\S*|pip|docker|mmdebstrap|apt\S*) .*$|`(?:\S*python\S*|pip|dockerd?) [^`]*`", re.MULTILINE
)
"""Commands of other programs."""
OUTPUT = re.compile(r"^    (?!\$ |agentlab ).*$", re.MULTILINE)
"""What a command printed."""

ROOT_COMMAND = typer.main.get_command(cli.app)


def commands_of(command) -> dict:
    """The commands below a command by name; those of benchmarks are found when they are asked for."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    return {name: command.get_command(None, name) for name in names}


def options_of(command) -> set[str]:
    """Options of a command and of the commands below it."""
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")}
    for below in commands_of(command).values():
        found |= options_of(below)
    return found | {"--help"}


def resolve(words: list[str]):
    """The command that these words name, as far as they do."""
    command = ROOT_COMMAND
    for word in words:
        below = commands_of(command).get(word)
        if below is None:
            break
        command = below
    return command


VERBS = {name: command for name, command in ROOT_COMMAND.commands.items() if not command.hidden}


def wrong_options(page: str, text: str) -> list[str]:
    """Options that the text names and that the command they stand behind, or the page's verb, does not have."""
    text, wrong = OUTPUT.sub("", FOREIGN.sub("", text)), []

    def take(found: re.Match[str]) -> str:
        command = resolve(found[1].split())
        if command is ROOT_COMMAND:
            return found[0]
        wrong.extend(f"{found[0].strip()}: {name}" for name in OPTION.findall(found[2]) if name not in options_of(command))
        return ""

    rest = COMMAND.sub(take, text)
    own = options_of(VERBS.get(page, ROOT_COMMAND))
    return wrong + [name for name in OPTION.findall(rest) if name not in own]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_page_that_shows_it_and_the_index_names_it(verb):
    page = DOCS / f"{verb}.md"
    assert page.is_file() and page.read_text(encoding="utf-8").startswith(f"# agentlab {verb}\n")
    assert f"$ agentlab {verb}" in page.read_text(encoding="utf-8"), "a page has real output"
    assert f"({verb}.md)" in (DOCS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page):
    assert wrong_options(page.stem, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_on_a_page(verb):
    pages = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in (verb, "tracking")}
    assert sorted(options_of(VERBS[verb]) - {"--help"} - set(OPTION.findall("\n".join(pages.values())))) == []


def test_an_option_that_does_not_exist_is_found():
    assert wrong_options("replay", "`agentlab replay RUN --solved --slowed`, `--stop` and `--step`") == [
        "agentlab replay RUN --solved --slowed: --slowed", "--step",
    ]  # fmt: skip
    assert wrong_options(
        "other", "`agentlab fetch osworld --vm` `agentlab fetch androidworld --vn` `python x.py --attempts 3`"
    ) == ["agentlab fetch androidworld --vn: --vn"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", text):
        assert not target or "://" in target or (page.parent / target).exists(), target
    for name, anchor in re.findall(r"\]\(([\w./]*\.md)#([^)]*)\)", text):
        headings = re.findall(r"^#+ (.*)$", (page.parent / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (name, anchor)


def test_pages_have_no_place_of_this_machine():
    for page in PAGES:
        assert not re.search(r"/(?:work|root|home/\w+)/", page.read_text(encoding="utf-8").replace("/home/user/", "")), page.name


def test_files_and_groups_that_the_architecture_names_exist():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:agentlab|envs|policies|retrospect|examples|tests)/[\w/.]*)`", text))
    assert len(named) > 15
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
    sources = "".join(
        path.read_text(encoding="utf-8")
        for package in ("envs", "policies", "retrospect")
        for path in (ROOT / package).rglob("*.py")
    )
    groups = set(re.findall(r"`(agentlab\.[a-z]+)`", text))
    assert groups and all(f'"{group}"' in sources for group in groups)
    names = {
        module: set(attributes.split("."))
        for module, attributes in re.findall(r"`((?:envs|policies|retrospect)(?:\.[a-z_]+)+)\.([A-Z]\w+)`", text)
    }
    for module, attributes in names.items():
        for attribute in attributes:
            assert hasattr(importlib.import_module(module), attribute), f"{module}.{attribute}"


@pytest.mark.parametrize("script", sorted((Path(__file__).parents[2] / "docs").glob("*.py")), ids=lambda path: path.stem)
def test_what_makes_the_pictures_can_be_loaded(script):
    """Nothing else imports it, so that a name that has moved would be missed when the next picture is due."""
    runpy.run_path(str(script), run_name="loaded")
