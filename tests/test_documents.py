"""HO6 and the documents of HO4: files for contributors run what they say, and documents lead where they point."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "spawn_servers" / "CONTRACT.md",
        ROOT / "tests" / "README.md",
    ]
)
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
HOOKS: dict[str, dict[str, Any]] = {
    hook["id"]: hook
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sessions() -> set[str]:
    """The sessions of noxfile.py."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("nox.session") for decorator in node.decorator_list)
    }


def sessions_of(command: str) -> list[str]:
    """The sessions that ``python3 noxfile.py -s ...`` runs; none for another command."""
    words = shlex.split(command)
    if words[:3] != ["python3", "noxfile.py", "-s"]:
        return []
    rest = words[3:]
    return rest[: rest.index("--")] if "--" in rest else rest


def commands(path: Path) -> list[str]:
    """The lines of a document's blocks that have no language."""
    blocks = re.findall(r"^```\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def jobs() -> dict[str, list[str]]:
    """Job of the workflow -> its sessions."""
    found = {}
    for name, job in WORKFLOW["jobs"].items():
        matrix = job.get("strategy", {}).get("matrix", {})
        lines = [step["run"] for step in job["steps"] if "run" in step]
        for session in matrix.get("session", [""]):
            expanded = [line.replace("${{ matrix.session }}", session) for line in lines]
            found.setdefault(name, []).extend(one for line in expanded for one in sessions_of(line))
    return found


# -- HO6 ---------------------------------------------------------------------------------------------------------------


def test_HO6_every_job_of_the_workflow_is_a_session() -> None:
    for name, job in WORKFLOW["jobs"].items():
        lines = [step["run"] for step in job["steps"] if "run" in step]
        assert lines, name
        assert all(sessions_of(line) for line in lines), f"{name} does something that noxfile.py does not know"
    assert set().union(*jobs().values()) <= sessions()


def test_HO6_the_workflow_has_linting_typing_tests_model_fuzz_wheels_and_pypy() -> None:
    assert set().union(*jobs().values()) >= {"lint", "typing", "tests", "model", "fuzz", "wheels", "pypy", "workflow"}


def test_HO6_the_workflow_tests_every_python_that_the_package_names() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {
        line.removeprefix("Programming Language :: Python :: ")
        for line in PROJECT["project"]["classifiers"]
        if line.startswith(prefix)
    }
    tested = set(WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"])
    assert named <= tested
    assert tested >= {"3.11", "3.12", "3.13", "3.14"}
    assert min(tested, key=lambda version: int(version[2:])) in PROJECT["project"]["requires-python"]


def test_HO6_the_workflow_is_one_by_its_schema(tmp_path: Path) -> None:
    """The linter's own schema, which is part of it. ``nox -s workflow`` runs actionlint, too."""

    def lint(path: Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert lint(ROOT / ".github" / "workflows" / "ci.yml") == 0
    wrong = tmp_path / "ci.yml"
    wrong.write_text(yaml.safe_dump({"on": "push", "jobs": {"check": {"runs-on": "ubuntu-latest", "stepz": []}}}))
    assert lint(wrong) != 0


def test_HO6_what_decides_a_change_runs_before_it_is_pushed() -> None:
    """Hooks are sessions; .ci/run's are among them, the whole suite (which checks types there) by its quick half."""
    hooked = {session for hook in HOOKS.values() for session in sessions_of(hook["entry"])}
    assert all(sessions_of(hook["entry"]) for hook in HOOKS.values())
    assert hooked <= sessions()
    lines = [line.partition("#")[0] for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    decisive = {session for line in lines for session in sessions_of(line.removeprefix("exec "))}
    assert decisive == {"lint", "tests"}
    assert decisive - {"tests"} | {"typing", "quick"} <= hooked


def test_HO6_the_commands_for_contributors_exist() -> None:
    page = ROOT / "CONTRIBUTING.md"
    lines = commands(page)
    used = [session for line in lines for session in sessions_of(line)]
    assert used
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", page.read_text(), re.MULTILINE)))
    assert set(used) | set(named) <= sessions()
    for line in lines:
        words = shlex.split(line)
        if words[0] == "python3":
            assert words[1:3] == ["-m", "venv"] or sessions_of(line)
        elif words[1:3] == ["-m", "pytest"]:
            assert all((ROOT / word).exists() for word in words[3:] if word.startswith("tests/"))
        else:
            assert words[0] in {".venv/bin/pip", ".venv/bin/pre-commit"}
    assert re.search(r"pip install -e '.\[test\]' pre-commit$", page.read_text(), re.MULTILINE)


def test_HO6_the_editor_is_told_what_is_so() -> None:
    """Every text of the tree but the fuzz corpora, which are bytes from the wire."""
    text = (ROOT / ".editorconfig").read_text()
    assert f"max_line_length = {PROJECT['tool']['ruff']['line-length']}" in text
    assert "[fuzz/corpora/**]" in text
    wrong = []
    for folder in ("passenger_trio", "spawn_servers", "tests", "fuzz", "docs", ".github"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix not in {".py", ".rb", ".js", ".cjs", ".mjs", ".md", ".toml", ".yml", ".c"}:
                continue
            if {"node_modules", "corpora"} & set(path.parts):
                continue
            data = path.read_bytes()
            if b"\r\n" in data or re.search(rb"[ \t]$", data, re.MULTILINE) or (data and not data.endswith(b"\n")):
                wrong.append(path.relative_to(ROOT))
    assert wrong == []


# -- documents -----------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        led = (path.parent / file).resolve() if file else path
        assert led.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(led), f"{path.name}: {target}"


def test_the_readme_is_short_and_has_its_picture() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    [picture] = re.findall(r"!\[[^]]+\]\((docs/[^)]+\.png)\)", text)
    data = (ROOT / picture).read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 150 * 1024


# -- HO4: ARCHITECTURE.md --------------------------------------------------------------------------------------------------

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
PACKAGE = ROOT / "passenger_trio"


def chapter(heading: str) -> str:
    [text] = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", ARCHITECTURE.read_text(), re.DOTALL | re.MULTILINE
    )
    return text


def table(heading: str) -> list[list[str]]:
    """The rows of a chapter's last table, without its heading."""
    lines = [line for line in chapter(heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_HO4_no_line_is_too_long() -> None:
    assert [line for line in ARCHITECTURE.read_text().splitlines() if len(line) > 120] == []


def test_HO4_where_a_change_belongs_exists() -> None:
    rows = table("Where do I change ...?")
    assert len(rows) >= 12
    assert len({change for change, _ in rows}) == len(rows)
    for change, cell in rows:
        files = re.findall("`([^`]+)`", cell)
        assert files, change
        for file in files:
            assert (PACKAGE / file).exists(), f"{change}: {file}"


def test_HO4_each_pattern_can_be_seen_where_it_is_said_to_be() -> None:
    rows = table("Trio patterns in this code")
    assert len(rows) >= 12
    for pattern, file, sign in rows:
        text = (PACKAGE / file.strip("`")).read_text()
        assert sign.strip("`") in text, f"{pattern}: {sign} is not in {file}"


def test_HO4_every_nursery_is_in_the_nursery_tree() -> None:
    tree = re.findall(r"^```\n(.*?)^```$", chapter("The nursery tree"), re.DOTALL | re.MULTILINE)[0]
    named = set(re.findall(r"[\w/]+\.py", tree))
    fakes = {"testing", "dummy.py"}
    opening = [
        path
        for path in PACKAGE.rglob("*.py")
        if "open_nursery()" in path.read_text() and not fakes & set(path.relative_to(PACKAGE).parts)
    ]
    assert len(opening) > 10
    for path in opening:
        name = str(path.relative_to(PACKAGE))
        assert name in named or path.name in named, f"{name} opens a nursery that is not in the tree"
    for name in named:
        assert (PACKAGE / name).exists() or len(list(PACKAGE.rglob(name))) == 1, name


def test_HO4_the_words_of_our_own_are_few_and_used() -> None:
    words = [word for word, _ in table("Glossary")]
    assert len(words) < 25
    texts = [path.read_text().lower() for path in PACKAGE.rglob("*.py")]
    for word in words:
        ways = {way for part in word.lower().split(", ") for way in (part, part.replace(" ", "_"))}
        assert sum(any(way in text for way in ways) for text in texts) >= 2, f"{word} is no word of the code"
