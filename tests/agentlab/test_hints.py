"""Every command, option and setting that a message or a page tells a person to use exists.

All texts that the product may say are walked: arguments of its errors, ``mend`` and ``hint`` texts, and every text that names a command
of ours; and every page under docs/.  A part of a text that is filled in at run time stands as ``…``.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from agentlab.cli import app as cli
from agentlab.run.keys import complete_key
from agentlab.run.settings import all_settings
from envs.errors import UsageError, did_you_mean

ROOT = Path(__file__).parents[2]
PRODUCT = [p for name in ("agentlab", "envs", "policies", "retrospect") for p in sorted((ROOT / name).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?<![\w./-])agentlab ((?:[a-z][a-z-]*(?: |$|(?=[`.,;:)])))*)([^`\n│]*)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")
SETTING = re.compile(r"(?<![\w./-])((?:[a-z_]+\.)+[a-z_]+)=")
SET = re.compile(r"--set '?([a-z_.]+)=")
FOREIGN = re.compile(
    r"\b(?:pip|docker|dockerd|apt|apt-get|python|qemu|chromium|modprobe|mount|uv|ray|srun|SBATCH) [^;.`]*|--no-sandbox|--gpus"
)
"""Commands of other programs."""
ROOT_COMMAND = typer.main.get_command(cli.app)
NAMES = {s.name for s in all_settings()}


# -- what is said ------------------------------------------------------------------------------------------------------------------
def said(source: str) -> Iterator[str]:
    """The texts in a module that a person may come to read as an instruction."""
    tree = ast.parse(source)
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    hinted: set[int] = set()
    for node in ast.walk(tree):
        if (
            (isinstance(node, ast.Call) and _name(node.func).endswith("Error"))
            or (isinstance(node, ast.keyword) and node.arg in ("hint", "mend"))
            or (isinstance(node, ast.FunctionDef) and node.name in ("mend", "did_you_mean"))
        ):
            hinted |= {id(n) for n in ast.walk(node)}
    inside = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(tree):
        if id(node) in documentation or id(node) in inside:
            continue
        text = _text(node)
        if text and (id(node) in hinted or COMMAND.search(text)):
            yield text


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


# -- what there is -----------------------------------------------------------------------------------------------------------------
def commands_of(command: Any) -> dict[str, Any]:
    """The commands below a command by name; those of benchmarks are found when they are asked for."""
    names = command.list_commands(None) if hasattr(command, "list_commands") else []
    return {name: command.get_command(None, name) for name in names}


def options_of(command: Any) -> set[str]:
    found = {name for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("--")} | {"--help"}
    return found.union(*(options_of(below) for below in commands_of(command).values()))


ANY_OPTION = options_of(ROOT_COMMAND)


def wrong(text: str) -> list[str]:
    """What a text names and there is not."""
    found = []
    text = FOREIGN.sub(" ", text)

    def command(match: re.Match[str]) -> str:
        words, at = match[1].split(), ROOT_COMMAND
        for place, word in enumerate(words):
            commands = commands_of(at)
            if not commands:
                break
            if word not in commands:
                if place or "`" in text[max(0, match.start() - 1) : match.start()]:
                    found.append(f"no verb {' '.join(words[: place + 1])!r}")
                return ""
            at = commands[word]
        if at is not ROOT_COMMAND:
            found.extend(f"{' '.join(words)} has no {name}" for name in OPTION.findall(match[2]) if name not in options_of(at))
        return " " + " ".join(f"{key}=" for key in SETTING.findall(match[2])) if at is ROOT_COMMAND or words else ""

    rest = COMMAND.sub(command, text)
    found += [f"no option {name}" for name in OPTION.findall(rest) if name not in ANY_OPTION]
    keys = {*SETTING.findall(text), *SET.findall(text)}
    return found + [f"no setting {key}" for key in sorted(keys) if not exists(key)]


def exists(key: str) -> bool:
    """Whether ``--set key=…`` is understood; of environments and policies, whether one of ours has the option."""
    try:
        full = complete_key(key)
    except UsageError:  # ambiguous
        return False
    return full in NAMES


# -- the walk ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_messages_tell_to_do_can_be_done(path):
    assert [(text, faults) for text in said(path.read_text(encoding="utf-8")) if (faults := wrong(text))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_tell_to_set_can_be_set(page):
    text = page.read_text(encoding="utf-8")
    assert [key for key in sorted({*SET.findall(text)} - {"a.b"}) if not exists(key)] == []
    assert [fault for line in text.splitlines() for fault in wrong(line) if fault.startswith("no verb")] == []


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("List them with `agentlab suites`.", ["no verb 'suites'"]),
        ("agentlab fetch osword brings it", ["no verb 'fetch osword'"]),
        ("`agentlab run --retry-infra --again`", ["run has no --again"]),
        ("Use --worker 1.", ["no option --worker"]),
        ("--set words.engin=self", ["no setting words.engin"]),
        ("use adapt.words.engines=rules", ["no setting adapt.words.engines"]),
        ("--set env.brows=PATH", ["no setting env.brows"]),
        ("Use --workers 1, `agentlab doctor`, adapt.beta=0.5 or --set infra_retries=2; pip install x --quiet", []),
    ],
)
def test_what_there_is_not_is_found(text, faults):
    assert wrong(text) == faults


def test_the_walk_reads_errors_hints_and_texts_that_name_a_command():
    lines = (
        'raise UsageError(f"No {x}.", "Try --nothing.")',
        'fix(mend="a --b")',
        'say("see `agentlab nowhere`")',
        'f(["--flag"])',
        '"""--x"""',
    )
    source = "\n".join(lines)
    assert sorted(said(source)) == ["No ….", "Try --nothing.", "a --b", "see `agentlab nowhere`"]
    assert sum(len(list(said(path.read_text(encoding="utf-8")))) for path in PRODUCT) > 500


def test_where_there_are_too_many_names_the_verb_that_lists_them_exists():
    kinds = {kind for path in PRODUCT for kind in re.findall(r'what="(\w+)"', path.read_text(encoding="utf-8"))}
    assert {"task", "suite", "setting"} <= kinds
    many = [f"name{n}" for n in range(50)]
    assert [wrong(did_you_mean("x", many, what=kind)) for kind in sorted(kinds)] == [[]] * len(kinds)
