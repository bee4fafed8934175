"""Is a function the lesson's own, or another learner's? Layout, comments and names of variables don't count.

A short function says nothing: whoever solves the exercise may write the same one.
"""

import ast
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from grading import cells
from grading.lessons import Exercise, shipped

LEAST = 40  # nodes of a syntax tree, which is about two lines that compute something
SHIPPED = "the shipped solution, word for word"


class Renamed(ast.NodeTransformer):
    """Numbers a function's own names in the order in which they appear, and drops what is said about them."""

    def __init__(self, function: ast.FunctionDef):
        inside = list(ast.walk(function))
        self.own = {one.arg for one in inside if isinstance(one, ast.arg)}
        self.own |= {one.id for one in inside if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        self.own |= {one.name for one in inside if isinstance(one, ast.FunctionDef)}
        self.numbers = {}

    def _numbered(self, name):
        return f"_{self.numbers.setdefault(name, len(self.numbers))}" if name in self.own else name

    def visit_Name(self, node):
        return ast.Name(self._numbered(node.id), node.ctx)

    def visit_arg(self, node):
        return ast.arg(self._numbered(node.arg))

    def visit_FunctionDef(self, node):
        says = node.body[1:] if ast.get_docstring(node) else node.body
        return self.generic_visit(ast.FunctionDef(self._numbered(node.name), node.args, says, []))


def wording(exercise: Exercise, listed: Sequence[dict]) -> str:
    """A digest of an exercise's functions in these cells; "" where one is missing, or all are short."""
    read, _ = cells.statements([cell["source"] for cell in listed])
    written = [one for one in read if isinstance(one.node, ast.FunctionDef)]
    texts, size = [], 0
    for _, name in exercise.checks:
        mine = [one for one in written if one.node.name == name]
        mine = mine or [one for one in written if listed[one.cell]["id"] == exercise.solution]
        if not mine:
            return ""
        function = mine[-1].node
        size += sum(1 for _ in ast.walk(function))
        texts.append(ast.dump(Renamed(function).visit(function)))
    return hashlib.sha256("\n".join(texts).encode(errors="replace")).hexdigest() if size >= LEAST else ""


def is_shipped(exercise: Exercise, listed: Sequence[dict]) -> bool:
    """Is it the lesson's own solution?"""
    mine = wording(exercise, listed)
    return mine != "" and mine == wording(exercise, shipped(exercise.lesson))


def name_twins(graded: Mapping[str, Mapping[str, dict]]):
    """Write into each exercise's result as "twins" who else handed in the same functions.

    Args:
        graded: of each student, results by lesson.
    """
    written = defaultdict(list)
    for student, results in graded.items():
        for result in results.values():
            for title, one in result["exercises"].items():
                written[title, one["wording"]].append((student, one))
    for (_, digest), rows in written.items():
        for student, one in rows:
            one["twins"] = sorted({other for other, _ in rows} - {student}) if digest else []
