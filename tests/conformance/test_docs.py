"""Do the links, paths, options and markers that the documents name exist?"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import repro
from conftest import ROOMS
from repro.pytest_plugin.suite import MARKERS

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name} links to {target}: there is no {place}"
        assert not anchor or anchor in anchors(place), f"{document.name} links to {target}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_exist(document):
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:repro|tests|fixtures|golden|docs)/[\w./-]*)`", text):
        if not re.search(r"[A-Z]{3,}", path) and not path.startswith("repro/models/NAME"):
            assert (ROOT / path).exists(), f"{document.name} names {path}, which is not there"


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", *ROOT.glob("docs/*.md")], ids=lambda path: path.name
)
def test_options_and_markers_exist(document, pytestconfig):
    known = {name for option in pytestconfig._parser._groups for o in option.options for name in o.names()}
    text = document.read_text(encoding="utf-8")
    for option in re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE):
        assert option in known, f"{document.name} lists {option}, which pytest does not know"
    for marker in re.findall(r"-m \"?(\w+)", text):
        assert marker in {name.partition("(")[0] for name in MARKERS} | {
            "pip",
            "pytest",
            "venv",
            "repro",
            "nltk",
            "tests",
        }


def test_every_marker_is_in_the_readme():
    told = set(re.findall(r"`([a-z]\w*)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {name for name in MARKERS if "(" not in name} <= told


@pytest.mark.parametrize("marker", ROOMS)
def test_a_marker_with_a_room_of_its_own_is_used_nowhere_else(marker):
    """As nothing outside the room is collected where it stands alone behind ``-m``."""
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        assert f"pytest.mark.{marker}" not in used or path.is_relative_to(ROOT / "tests" / marker), path


def test_what_a_notebook_imports_is_there_and_costs_nothing_before():
    """Functions that share their name with a module, too, in whatever order they are asked for."""
    code = (
        "import sys, repro; assert 'torch' not in sys.modules; "
        "from repro import attention_shares; "  # alone, before anything else has imported its module
        "from repro import cliff_layer, llava_cam, load_model, sweep, table1, truncated; "
        "print(*(getattr(repro, name).__name__ for name in repro.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == repro.__all__, done.stderr
