"""A paper and its claims from a file; the functions that check the claims are in ``repro.audit.claims``."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from num2words import num2words

from repro.audit.ledger import Claim, Finding, Load, Outcome, Paper, Verdict, subjects
from repro.benchmarks.benchmark import DataError

Check = Callable[[Any], Finding]
Experiment = Callable[[Any, Load], Finding]
REQUIRED = ("id", "where", "statement", "quantity", "verdict", "evidence")
#: Type of each key of a claim in the file.
KINDS: dict[str, type] = dict.fromkeys((*REQUIRED, "outcome", "miniatures", "pretrained", "figure"), str)
KINDS |= {"missing": tuple, "takes": tuple, "stated": dict}
CHOICES = {"verdict": get_args(Verdict), **dict.fromkeys(("outcome", "pretrained"), get_args(Outcome))}


def fault_of(row: Mapping[str, Any]) -> str:
    """What is wrong with a claim of the file by itself; empty where nothing is."""
    for key in REQUIRED:
        if not row.get(key):
            return f"has no {key}"
    for key, value in row.items():
        if key not in KINDS:
            return f"has the key {key!r}; expected only {', '.join(KINDS)}"
        texts = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else [value]
        if not isinstance(value, KINDS[key]) or not all(isinstance(text, str) for text in texts):
            return f"has {key} = {value!r}; expected {'a string' if KINDS[key] is str else 'strings'}"
        if key in CHOICES and value not in CHOICES[key]:
            return f"has {key} = {value!r}; expected one of {', '.join(CHOICES[key])}"
    return ""


class Tables(dict[str, Any]):
    """What a TOML file has, arrays as tuples; DataError if it cannot be read, and for a key that it lacks."""

    def __init__(self, path: Path):
        self.path = path
        try:
            super().__init__(frozen(tomllib.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected a file of TOML: {error}") from error

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{self.path}: has no {key!r}")


def frozen(value: Any) -> Any:
    """Arrays as tuples, all the way down."""
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def worded(experiment: Experiment, template: str) -> Experiment:
    """An experiment with evidence: the template, filled with its numbers and words by their names.

    And with ``{subjects}`` and how many ``{benchmarks}`` it was measured on.
    """

    def run(paper: Any, load: Load) -> Finding:
        finding = experiment(paper, load)
        measured = {"subjects": subjects(paper.models), "benchmarks": num2words(len(paper.benchmarks))}
        words = {**measured, **finding.numbers, **finding.words}
        return replace(finding, evidence=template.format_map(words))

    return run


def read_claims(
    path: Path, paper: Paper, checks: Mapping[str, Check], experiments: Mapping[str, Experiment]
) -> tuple[Claim, ...]:
    """The claims of a TOML file, in its order.

    Args:
        paper: fills the templates of statements and quantities.
        checks, experiments: by id; a claim without a check is a reading of what the text states.

    Raises:
        DataError: a file that cannot be read, or a claim that is incomplete, there twice, decided by nothing, or
            without the check or experiment that is meant for it.
    """
    rows = Tables(path)["claims"]
    if not isinstance(rows, tuple) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: expected [[claims]]")
    claims: dict[str, Claim] = {}
    for number, row in enumerate(rows, 1):
        name: str = row.get("id", "")
        stated = row.get("stated", {})
        fault = fault_of(row)
        if not fault and name in claims:
            fault = "is there twice"
        if not fault and not (stated or row.get("missing") or name in checks):
            fault = "is decided by nothing; expected a check of this id, or what is stated and missing"
        if not fault and not ("outcome" in row) == ("miniatures" in row) == (name in experiments):
            fault = "has one or two of outcome, miniatures and an experiment of this id; expected all or none"
        if not fault and "pretrained" in row and "outcome" not in row:
            fault = "has pretrained and no outcome; expected an outcome, too"
        if fault:
            raise DataError(f"{path}: claim {number} ({name}) {fault}")
        texts = {key: value for key, value in row.items() if KINDS[key] is str}
        template = texts.pop("miniatures", "")
        try:
            texts |= {key: texts[key].format(paper=paper) for key in ("statement", "quantity")}
        except (AttributeError, LookupError, ValueError) as error:
            raise DataError(f"{path}: claim {number} ({name}) has an unfilled template: {error}") from error
        claims[name] = Claim(
            **texts,
            stated=stated | dict.fromkeys(row.get("missing", ())),
            takes=row.get("takes", ()),
            experiment=worded(experiments[name], template) if template else None,
            compute=checks.get(name),
        )
    if unused := sorted((checks.keys() | experiments.keys()) - claims.keys()):
        raise DataError(f"{path}: no claim has the id {', '.join(unused)}, which a check or experiment has")
    return tuple(claims.values())
