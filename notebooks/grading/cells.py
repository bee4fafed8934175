"""Which statements of a notebook does a function need? Read from the text, without running anything.

It imports nothing of the lab, because it is loaded beside the functions that learners hand in.
"""

import ast
import re
import symtable
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PARSING = threading.Lock()
NO_FILE = "<\ud800>"  # no file, as Python would open it for an error's text
MAGIC = re.compile(r"^([ \t]*)[%!].*$|^([ \t]*).*\?$", re.MULTILINE)


class Statement(NamedTuple):
    """A statement at the top of a cell: the names that it binds or changes, and those that it reads."""

    cell: int
    node: ast.stmt
    binds: frozenset[str]
    reads: frozenset[str]


def statements(cells: Sequence[str]) -> tuple[list[Statement], dict[int, str]]:
    """Read cells: all statements that can be read, and what is wrong with each cell that cannot."""
    listed, faults = [], {}
    for cell, source in enumerate(cells):
        try:
            listed += [statement(cell, node) for node in _read(source)]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            faults[cell] = f"{type(error).__name__}: {error}".replace(NO_FILE, "this cell")
    return listed, faults


def parse(source: str) -> list[ast.stmt]:
    """The statements of a program. One thread at a time: CPython 3.11 counts the depth of all trees that it
    makes in one place, and raises SystemError where another thread's tree was counted in between."""
    with PARSING:
        return ast.parse(source, NO_FILE).body


def _read(source):
    """A cell's statements; its magics and questions to IPython are left out."""
    try:
        return parse(source)
    except SyntaxError:
        if re.match(r"\s*%%", source):  # another language
            return []
        return parse(MAGIC.sub(r"\1\2pass", source))


def statement(cell: int, node: ast.stmt) -> Statement:
    """Find the names of a statement."""
    table = symtable.symtable(ast.unparse(node), NO_FILE, "exec")
    binds = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    binds |= {target.id for target in map(_root, _targets(node)) if isinstance(target, ast.Name)}
    return Statement(cell, node, frozenset(binds), frozenset(_globals(table)))


def _targets(node):
    """What an assignment changes: in `memo[x] = y` and `f.calls += 1` these are parts of a name's value."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []


def _root(node):
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node


def _globals(table):
    """The names that a statement looks up outside of its functions, wherever in it this happens."""
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


def needed(listed: Sequence[Statement], name: str) -> list[Statement]:
    """The statements that bind a name, and those that bind what these read, in their order."""
    names, chosen = {name}, set()
    while True:
        more = {place for place, one in enumerate(listed) if one.binds & names} - chosen
        if not more:
            return [listed[place] for place in sorted(chosen)]
        chosen |= more
        names |= {read for place in more for read in listed[place].reads}


def imports(listed: Sequence[Statement], names: set[str], package: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what these statements take from a package under one of the names."""
    for one in listed:
        if isinstance(one.node, ast.ImportFrom) and (one.node.module or "").split(".")[0] == package:
            for alias in one.node.names:
                if (alias.asname or alias.name) in names:
                    yield one.node.module, alias.name


def functions(listed: Sequence[Statement], cell: int) -> list[str]:
    """The functions that a cell defines at its top."""
    return [one.node.name for one in listed if one.cell == cell and isinstance(one.node, ast.FunctionDef)]


def text(listed: Sequence[Statement]) -> str:
    """Statements as a program."""
    return "\n".join(ast.unparse(one.node) for one in listed)
