"""Small faults that can be put into a Python source, one at a time, each at a place of its syntax tree.

Left out is what changes no behaviour, or only its wording: docstrings, texts, annotations, decorators, the help
of options, what an error says, ``__repr__``, imports, ``strict=`` of zip, and the order of arguments where it is
free.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OPERATORS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS = (("min", "max"), ("any", "all"), ("argmax", "argmin"), ("ceil", "floor"))
NAMES = {name: other for pair in _PAIRS for name, other in (pair, pair[::-1])}


@dataclass(frozen=True)
class Mutant:
    """``what`` became of the source's bytes from ``start`` to ``end``, in this line (1-based)."""

    line: int
    start: int
    end: int
    new: str
    what: str

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants(source: bytes) -> list[Mutant]:
    """All of them, by place."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    out = []
    for node, new, what in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        text = ast.unparse(ast.fix_missing_locations(new))
        old = source[start:end].decode()
        wrapped = f"({text})" if isinstance(new, ast.expr) and not isinstance(new, ast.Constant) else text
        said = f"{' '.join(old.split())[:60]} -> {' '.join(text.split())[:60]}"
        out.append(Mutant(node.lineno, start, end, wrapped, f"{what}: {said}"))
    return sorted(out, key=lambda mutant: (mutant.start, mutant.end, mutant.what))


def _changes(node: ast.AST) -> Iterator[tuple[Any, Any, str]]:
    """(the node that is replaced, by what, the kind of fault) in a tree."""
    yield from _changes_of(node)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "msg", "exc"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _left_out(child):
                yield from _changes(child)


def _left_out(node: ast.AST) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    silent = isinstance(node, ast.FunctionDef) and node.name == "__repr__"
    typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    helping = isinstance(node, ast.keyword) and node.arg in ("help", "metavar", "strict")
    return (
        text or silent or typing or helping or isinstance(node, ast.JoinedStr | ast.ImportFrom | ast.Import)
    )


def _with(node: Any, **fields: Any) -> Any:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _changes_of(node: Any) -> Iterator[tuple[Any, Any, str]]:
    match node:
        case ast.Compare(ops=[op]):
            yield node, _with(node, ops=[OPERATORS[type(op)]()]), "comparison"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            texts = (isinstance(side, ast.JoinedStr | ast.Constant | ast.List) for side in (left, right))
            numbers = (isinstance(getattr(side, "value", None), int | float) for side in (left, right))
            if not any(texts) or any(numbers):
                yield node, _with(node, op=OPERATORS[type(op)]()), "arithmetic"
        case ast.BoolOp(op=op):
            yield node, _with(node, op=OPERATORS[type(op)]()), "and/or"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, operand, "not dropped"
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield node, operand, "minus dropped"
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value), "boolean"
        case ast.Constant(value=int(value)):
            yield node, ast.Constant(value + (1 if node.lineno % 2 else -1)), "constant"
        case ast.Constant(value=float(value)):
            yield node, ast.Constant(1.5 * value or 1.0), "constant"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield test, ast.UnaryOp(ast.Not(), test), "condition"
        case ast.comprehension(ifs=[test]):
            yield test, ast.Constant(True), "filter dropped"
        case ast.Return(value=ast.expr() as value) if not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield node, ast.Return(None), "result"
        case ast.Continue() | ast.AugAssign() | ast.Raise() | ast.Expr(value=ast.Call()) | ast.Delete():
            yield node, ast.Pass(), "statement dropped"
        case ast.Call(args=[first, second, *rest]) if not any(isinstance(a, ast.Starred) for a in node.args):
            if ast.unparse(node.func) not in ("isinstance", "getattr", "hasattr", "setattr", "min", "max"):
                yield node, _with(node, args=[second, first, *rest]), "arguments swapped"
        case ast.Slice(lower=lower, upper=upper):
            if upper is not None and not isinstance(upper, ast.Constant):
                yield upper, ast.BinOp(upper, ast.Sub(), ast.Constant(1)), "slice"
            if lower is not None and not isinstance(lower, ast.Constant):
                yield lower, ast.BinOp(lower, ast.Add(), ast.Constant(1)), "slice"
        case ast.Name(id=name) if name in NAMES:
            yield node, ast.Name(NAMES[name]), "function"
        case ast.Attribute(attr=name) if name in NAMES:
            yield node, _with(node, attr=NAMES[name]), "function"
