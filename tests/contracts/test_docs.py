"""What the documents promise exists: links lead somewhere, commands and their options are real.

Nothing is executed: command lines are walked through click's own tree of commands.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from guard_core.cli import root

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "opa_policies").rglob("*.md")],
    key=str,
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
CALL = re.compile(r"^(?:\w+=\S*\s+)*(?:[\w./-]*/)?trainguard\s+(?!\d)(.*)$", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
RULE = re.compile(r"\b(?:LEAK|POIS|PRIV|QUAL|DRFT|TAMP|USAG)\d{3}\b")
PLACEHOLDER = re.compile(r"[A-Z0-9_@,.:$-]*[A-Z][A-Z0-9_@,.:$-]*|\.\.\.")


def _prose(text: str) -> str:
    return FENCE.sub("", text)


def _anchors(text: str) -> set[str]:
    """GitHub's names of headings: lower case, spaces as hyphens, other signs left out."""
    return {
        re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in HEADING.findall(_prose(text))
    }


def _pieces(text: str) -> Iterator[str]:
    """Every stretch of a document that may be a command line: shell lines in blocks, spans in prose."""
    for _, language, body in FENCE.findall(text):
        if language in ("", "console", "sh", "bash", "shell"):
            yield from body.replace("\\\n", " ").splitlines()
    for line in _prose(text).splitlines():
        if line.startswith("    "):
            yield line
    yield from (span.replace("\n", " ") for span in SPAN.findall(_prose(text)))


def _calls(text: str) -> Iterator[list[str]]:
    """The words after ``trainguard`` of every call. ``a | b`` after a group is its other subcommands."""
    for piece in _pieces(text):
        line = re.sub(r"\s#.*$", "", piece.strip().removeprefix("$ "))
        for part in re.split(r"&&|;|\$\(|\)", line):
            group: list[str] = []
            for segment in re.split(r"\s\|\s", part.split(" > ")[0]):
                call = CALL.match(segment.strip())
                if call is not None:
                    words = shlex.split(re.sub(r"[\[\]…]", " ", call[1]).replace("'", ""))
                    group = words[:1]
                    yield words
                elif group and isinstance(_command(group), click.Group):
                    yield [*group, *shlex.split(re.sub(r"[\[\]]", " ", segment))]


def _command(names: list[str]) -> click.Command | None:
    found: click.Command | None = root
    for name in names:
        if not isinstance(found, click.Group):
            return None
        found = found.get_command(click.Context(found), name)
    return found


def _fault(words: list[str]) -> str | None:
    """Why this call cannot be made, or None. Values in capitals stand for something and pass."""
    command: click.Command = root
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help", "..."):
            continue
        if word.startswith("-"):
            name, _, value = word.partition("=")
            option = next((p for p in command.params if name in (*p.opts, *p.secondary_opts)), None)
            if option is None:
                return f"{command.name} has no option {name}"
            if isinstance(option, click.Option) and not option.is_flag:
                if not value and not rest:
                    continue  # named in prose, without its value
                value = value or rest.pop(0)
                if isinstance(option.type, click.Choice) and not PLACEHOLDER.fullmatch(value):
                    unknown = set(value.split("|")) - {str(choice) for choice in option.type.choices}
                    if unknown:
                        return f"{command.name} {name} does not take {', '.join(sorted(unknown))}"
        elif isinstance(command, click.Group) and not PLACEHOLDER.fullmatch(word):
            names = word.split("|")
            found = [command.get_command(click.Context(command), each) for each in names]
            if None in found:
                return f"{command.name} has no command {word}"
            if len(found) == 1 and found[0] is not None:
                command = found[0]
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path):
    lost = []
    for target in LINK.findall(_prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path) if path else document
        known = {""}
        if place.suffix == ".md" and place.is_file():
            known |= _anchors(place.read_text(encoding="utf-8"))
        if not place.exists() or (place.suffix == ".md" and anchor not in known):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_trainguard_command_and_option_named_exists(document: Path):
    text = document.read_text(encoding="utf-8")
    faults = [f"trainguard {' '.join(w)}: {fault}" for w in _calls(text) if (fault := _fault(w))]
    assert faults == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_python_block_compiles_and_imports_names_of_ours_that_exist(document: Path):
    for _, language, body in FENCE.findall(document.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "compute_guard",
                "dataset_guard",
                "guard_core",
            ):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_rule_and_make_target_named_exists(document: Path):
    text = document.read_text(encoding="utf-8")
    pages = {page.stem for page in (ROOT / "docs" / "rules").glob("*.md")}
    assert set(RULE.findall(text)) <= pages
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = {m[1] for piece in _pieces(text) if (m := re.match(r"(?:\$ )?make ([a-z-]+)", piece.strip()))}
    assert made <= targets


def test_the_reader_of_command_lines_sees_what_the_documents_hold():
    """So that the tests above cannot pass by finding nothing."""
    calls = [" ".join(words) for words in _calls((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert "tenant issue acme --user ada" in calls
    assert "policy replay --since 30d --candidate my-policies" in calls
    assert ["incident", "ack", "ID", "--confirm"] in list(
        _calls("```\ntrainguard incident list | ack ID [--confirm]\n```\n")
    )


@pytest.mark.parametrize(
    "line",
    [
        "trainguard policy chek",
        "trainguard policy check --strictly",
        "X=1 .venv/bin/trainguard compute install --target ray-start|mesos",
        "echo $(trainguard tenant isue acme)",
        "trainguard incident list | shew ID",
    ],
)
def test_a_command_line_that_is_wrong_is_told(line: str):
    (fault,) = [f for words in _calls(f"```console\n$ {line}\n```\n") if (f := _fault(words))]
    assert "has no" in fault or "does not take" in fault
