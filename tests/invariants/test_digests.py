"""What decides an answer is in a digest, and nothing else is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from repro.evaluation import digests as module
from repro.evaluation.digests import digest_of, revision_of, versions
from repro.evaluation.environment import commit, environment
from repro.evaluation.results import Asked
from repro.evaluation.sources import PACKAGE, sources_of

pytestmark = pytest.mark.invariant


def test_the_revision_is_every_visible_file_of_a_checkpoint(tmp_path):
    def digest():
        revision_of.cache_clear()
        return revision_of(tmp_path)

    (tmp_path / "config.json").write_text("{}")
    first = digest()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "when").write_text("today")
    assert digest() == first
    (tmp_path / "model.safetensors").write_bytes(b"0")
    second = digest()
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert len({first, second, digest()}) == 3
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert digest() not in (first, second)


def test_versions_hold_the_sources(monkeypatch):
    known = versions()
    assert {"torch", "transformers", "tokenizers", "sentencepiece", "numpy", "pillow", "nltk"} <= known.keys()
    assert {"repro", "python"} <= known.keys()
    versions.cache_clear()
    monkeypatch.setattr(module, "_content", lambda path: "changed")
    assert versions()["repro"] != known["repro"]
    versions.cache_clear()


def test_the_commit_of_the_code_is_said_or_that_there_is_none(monkeypatch):
    assert re.fullmatch("[0-9a-f]{40,64}(, with changes)?|no git checkout", commit())
    monkeypatch.setenv("PATH", "")
    assert commit() == environment()["commit"] == "no git checkout"


def test_a_digest_does_not_depend_on_the_order_of_a_set():
    words = [f"word{i}" for i in range(50)]
    assert digest_of(frozenset(words)) == digest_of(frozenset(reversed(words))) == digest_of(sorted(words))
    assert digest_of(Asked("1")) == digest_of(Asked("1")) != digest_of(Asked("2"))


def test_what_cannot_change_an_answer_is_not_among_the_sources_that_end_a_run():
    deciding = {path.relative_to(PACKAGE).as_posix() for path in sources_of()}
    assert deciding >= {
        "sweep.py",
        "truncation.py",
        "segments.py",
        "evaluation/run.py",
        "benchmarks/chair_words.py",
    }
    assert deciding >= {
        "models/attending.py",
        "models/shikra.py",
        "protocols/official.py",
        "protocols/task.py",
    }
    assert not {name for name in deciding if name.startswith(("report/", "audit/", "pytest_plugin/"))}
    assert deciding.isdisjoint({"cam.py", "cliff.py", "golden.py", "table1.py", "evaluation/measured.py"})


def test_all_that_an_evaluation_imports_is_among_them():
    code = (
        "import sys, repro.evaluation.run; from repro.models import load_model; load_model('qwen-vl'); "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'repro'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert set(map(Path, done.stdout.split())) <= {*sources_of(), PACKAGE / "__init__.py"}
