"""Run what lessons import, and nothing else of them: `python imports.py NOTEBOOK ...`.

A `try` that holds an import runs whole, since it says what to do where the module is missing.
"""

import ast
import json
import sys
from pathlib import Path

IMPORTS = (ast.Import, ast.ImportFrom)


def importing(nodes):
    """The imports among statements, at any depth."""
    for node in nodes:
        holds = any(isinstance(inner, IMPORTS) for inner in ast.walk(node))
        if isinstance(node, (*IMPORTS, ast.Try)) and holds:
            yield node
        elif holds:
            yield from importing(child for child in ast.walk(node) if isinstance(child, IMPORTS))


def main(notebooks):
    for notebook in map(Path, notebooks):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                body = [*importing(ast.parse("".join(cell["source"])).body)]
                module = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
                exec(compile(module, f"{notebook.name}, cell {number}", "exec"), {})
        print(f"{notebook.stem}: all its imports are here")


if __name__ == "__main__":
    main(sys.argv[1:])
