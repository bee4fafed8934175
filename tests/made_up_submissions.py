"""Made-up submissions for `r1lab grade`: what learners hand in, right, wrong, odd and dishonest.

Each kind changes a learner's copy of a lesson for one exercise. In its text {name} is the learner's
function, {check} the exercise's check and {right} the lesson's solution.
"""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from grading.lessons import Exercise, exercises
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from r1lab.files import NOTEBOOKS
from tests.tools.student import BEGIN, END, student_copy

MARKERS = re.compile(rf"^[ \t]*(?:{BEGIN}|{END})[^\n]*\n?", re.MULTILINE)
# Functions that earn nothing. A call of the right one, if there is any, is `_right(*args)`.
WRONG = {
    "nothing": "    raise NotImplementedError",
    "returns None": "    return None",
    "raises": "    return 1 / 0",
    "takes the name of something missing": "    return no_such_name(*args)",
    "returns what it was given": "    return args",
    "recurses": "    return {name}(*args)",
    "crashes Python": "    import ctypes\n    ctypes.string_at(0)",
    "crashes by a signal": "    import os\n    os.kill(os.getpid(), 9)",
    "ends the program": "    import os\n    os._exit(0)",
    "exits": "    raise SystemExit",
    "fills the memory": "    return bytearray(2**33)",
}
ENDLESS = {
    "loops": "    while True:\n        pass",
    "swallows what stops it": "    while True:\n        try:\n            while True:\n                pass\n"
    "        except BaseException:\n            pass",
}
CHEATS = {
    "an object that equals everything": "    class Same(float):\n        __eq__ = lambda *any: True\n"
    "        __sub__ = __rsub__ = __abs__ = lambda self, *any: self\n        __lt__ = __le__ = __eq__\n"
    "    return Same()",
    "imports the package's function": "    from r1lab.objective import group_advantages\n"
    "    return group_advantages(*args)",
    "imports the check": "    import r1lab.lab.check.engine as engine\n    return engine.EXAMPLES['{check}'][0][2]",
    "reads the truth in the caller's frame": "    import sys\n    frame = sys._getframe()\n    while frame:\n"
    "        for scope in (frame.f_locals, frame.f_globals):\n"
    "            for key in ('rights', 'right', 'truth', 'options'):\n"
    "                if key in scope:\n                    return scope[key][0]\n"
    "        frame = frame.f_back\n    return None",
    "searches the memory": "    import gc\n"
    "    tables = [one for one in gc.get_objects() if isinstance(one, dict) and '{check}' in one]\n"
    "    return tables[0]['{check}'][0][2]",
    "replaces the comparison": "    import sys\n    for module in list(sys.modules.values()):\n"
    "        for key in ('same', '_compare', '_compare_tensors', 'judge'):\n"
    "            if hasattr(module, key):\n                setattr(module, key, lambda *any: 'right')\n"
    "    return 0.5",
    "answers for the asker": "    import sys\n    for module in list(sys.modules.values()):\n"
    "        if hasattr(module, 'reply'):\n"
    "            module.reply = lambda *any: '{{\"fault\": \"right\"}}'\n    return None",
    "writes the verdict itself": "    import os\n"
    "    os.write(3, b'{{\"fault\": \"right\"}}\\n' * 999)\n    os._exit(0)",
    "writes replies without slopes": "    import os\n"
    "    os.write(3, b'{{\"kind\": \"\", \"values\": [{{\"tensor\": 0.0}}]}}\\n' * 999)\n    os._exit(0)",
    "writes what cannot be read": "    import os\n"
    "    os.write(3, b'[' * 99999 + b'\\n{{\"kind\": 1, \"values\": {{\"tensor\": \"x\"}}}}\\n')\n    os._exit(0)",
    "reads the solution": "    import glob\n    return open(glob.glob('/**/*.ipynb', recursive=True)[0]).read()",
    "reads a file": "    return open('/etc/passwd').read()",
    "asks the network": "    import socket\n    return socket.create_connection(('127.0.0.1', 80))",
    "starts a process": "    import subprocess\n    return subprocess.run(['id'])",
    "starts a thread": "    import _thread\n    return _thread.start_new_thread(print, ())",
    "looks at other processes": "    import os\n    return os.listdir('/proc')",
}


def solution(notebook: NotebookNode, exercise: Exercise) -> str:
    """The lesson's own solution, without its markers."""
    [cell] = [cell for cell in notebook.cells if cell.id == exercise.solution]
    return MARKERS.sub("", cell.source)


def wrong_function(body: str) -> Callable:
    """A kind: all functions of an exercise have this body."""

    def change(notebook, exercise, right):
        texts = [
            f"def {name}(*args, **named):\n" + body.format(name=name, check=check) for check, name in exercise.checks
        ]
        put(notebook, exercise, "\n\n\n".join(texts))

    return change


def put(notebook: NotebookNode, exercise: Exercise, source: str):
    cell(notebook, exercise.solution).source = source


def cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(one for one in notebook.cells if one.id == name)


def remove(notebook: NotebookNode, *names: str):
    notebook.cells = [one for one in notebook.cells if one.id not in names]


def insert(notebook: NotebookNode, exercise: Exercise, source: str):
    """A new cell before the check's."""
    place = [one.id for one in notebook.cells].index(exercise.test)
    notebook.cells.insert(place, new_code_cell(source))


# ---- kinds that earn the point, and what is noticed


def plain(notebook, exercise, right):
    put(notebook, exercise, right)


def in_another_cell(notebook, exercise, right):
    insert(notebook, exercise, right)


def renamed(notebook, exercise, right):
    test = cell(notebook, exercise.test)
    for _, name in exercise.checks:
        right = re.sub(rf"\b{name}\b", f"{name}_of_mine", right)
        test.source = re.sub(rf"(?<!check\.)\b{name}\b", f"{name}_of_mine", test.source)
    put(notebook, exercise, right)


def without_its_check(notebook, exercise, right):
    put(notebook, exercise, right)
    remove(notebook, exercise.test)


def with_another_check(notebook, exercise, right):
    put(notebook, exercise, right)
    cell(notebook, exercise.test).source = "assert True"


def twice(notebook, exercise, right):
    put(notebook, exercise, right)
    notebook.cells.insert(0, copy.deepcopy(cell(notebook, exercise.solution)))


def without_names(notebook, exercise, right):
    put(notebook, exercise, right)
    for name in (exercise.solution, exercise.test):
        one = cell(notebook, name)
        one.id = f"new-{name}"
        one.metadata.pop("nbgrader", None)


def with_magics(notebook, exercise, right):
    put(notebook, exercise, f"%time x = 1\n!ls\n{right}\nprint?\n")


def beside_a_broken_cell(notebook, exercise, right):
    put(notebook, exercise, right)
    insert(notebook, exercise, "def broken(:\n    '\\q")


RIGHT = {
    "as in the lesson": (plain, ""), "in another cell": (in_another_cell, ""),
    "renamed": (renamed, "is called"), "the check's cell deleted": (without_its_check, "was deleted"),
    "the check's cell edited": (with_another_check, "was edited"), "a cell twice": (twice, "is there 2 times"),
    "cells without their names": (without_names, "was deleted or renamed"), "with magics": (with_magics, ""),
    "beside a broken cell": (beside_a_broken_cell, ""),
}  # fmt: skip


# ---- kinds that earn nothing


def a_bit_off(notebook, exercise, right):
    """The right results, each changed a bit."""
    for _, name in exercise.checks:
        right = re.sub(rf"\b{name}\b", f"_{name}", right)
    changed = """

def _off(x):
    if isinstance(x, bool):
        return not x
    if isinstance(x, str):
        return x + "0"
    if isinstance(x, (list, tuple)):
        return [*x, 1]
    if x is None:
        return ""
    return ~x if getattr(x, "dtype", None) is not None and str(x.dtype) == "torch.bool" else x + 1
"""
    wrappers = [f"\n\ndef {name}(*args):\n    return _off(_{name}(*args))\n" for _, name in exercise.checks]
    put(notebook, exercise, right + changed + "".join(wrappers))


def deleted(notebook, exercise, right):
    remove(notebook, exercise.solution, exercise.test)


def unreadable(notebook, exercise, right):
    put(notebook, exercise, right.replace("return", "return ("))


def overwrites_check(notebook, exercise, right):
    names = "".join(f"    {check} = staticmethod(lambda fn: True)\n" for check, _ in exercise.checks)
    body = "".join(f"\n\ndef {name}(*args):\n    return None\n" for _, name in exercise.checks)
    put(notebook, exercise, f"class check:\n{names}{body}")


def edits_the_check(notebook, exercise, right):
    overwrites_check(notebook, exercise, right)
    cell(notebook, exercise.test).source = "print('right')"


def is_the_packages(notebook, exercise, right):
    names = "".join(f"from r1lab.objective import {check} as {name}\n" for check, name in exercise.checks)
    put(notebook, exercise, names)


def changes_later(notebook, exercise, right):
    """Right the first time it is asked, wrong from then on."""
    for _, name in exercise.checks:
        right = re.sub(rf"\b{name}\b", f"_{name}", right)
    wrappers = [
        f"\n\ndef {name}(*args, last=[]):\n    last.append(_{name}(*args))\n    return last[0]\n"
        for _, name in exercise.checks
    ]
    put(notebook, exercise, right + "".join(wrappers))


NOTHING = {
    **{what: wrong_function(body) for table in (WRONG, ENDLESS, CHEATS) for what, body in table.items()},
    "a bit off": a_bit_off, "deleted": deleted, "unreadable": unreadable, "its first answer for ever": changes_later,
    "overwrites check": overwrites_check, "edits the check": edits_the_check, "is the package's": is_the_packages,
}  # fmt: skip


def earned(kinds: list[str]) -> list[bool]:
    """Which exercises of a submission earn their point."""
    return [kind in RIGHT for kind in kinds]


def submission(lesson: str, kinds: list[str]) -> NotebookNode:
    """A learner's copy in which each exercise, in their order, is of a kind."""
    shipped = nbformat.read(NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    notebook = student_copy(shipped)
    for exercise, kind in zip(exercises(lesson), kinds, strict=True):
        change = RIGHT[kind][0] if kind in RIGHT else NOTHING[kind]
        change(notebook, exercise, solution(shipped, exercise))
    return notebook


def hand_in(folder: Path, student: str, lesson: str, kinds: list[str]):
    """Write a submission to a folder of submissions."""
    (folder / student).mkdir(parents=True, exist_ok=True)
    path = folder / student / f"{lesson}.ipynb"
    path.write_text(json.dumps(submission(lesson, kinds)), encoding="utf-8")
