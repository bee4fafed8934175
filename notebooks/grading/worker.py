"""The learner's side of `r1lab grade`: a locked process that finds a function in cells, and asks it.

A script for the sandbox, like its `zygote.py`, on which it builds: `worker.py ZYGOTE ASKING FOLDER ...`,
where the folders are Python's path. It loads what lessons compute with, and no module of the lab that
knows an answer; each job is then done by a forked child that the kernel locks in. There is no file, no
network and no other process for the learner's code, nor a right answer in its memory. The first line that
a child writes says which function was asked; each line after it is the reply to one question.
"""

import importlib
import importlib.util
import json
import linecache
import os
import sys
import types
from pathlib import Path

HERE = Path(__file__).parent
# What solutions import and their texts need, beside the parts of the standard library that the sandbox has.
MODULES = "numpy torch torch.nn.functional jaxtyping encodings.unicode_escape encodings.raw_unicode_escape"
DEPTH = 3000  # of recursion, as in a notebook
GIVEN = ("r1lab", *(path.stem for path in HERE.parent.glob("*.py")))  # of them, a job brings what it gives


class Absent:
    """What is not at hand while a function is graded: using it is an error that says so."""

    def __init__(self, name: str):
        self.__name__ = name

    def __call__(self, *args, **named):
        raise ImportError(f"{self.__name__} is not at hand while you are graded, so write what you need yourself")

    def __getattr__(self, name: str):
        return self() if not name.startswith("__") else object.__getattribute__(self, name)


class GivenModule(types.ModuleType):
    """A module of the lab, with no more in it than an exercise gives."""

    __path__ = ()

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(f"{self.__name__}.{name}")


class Given:
    """Finds and makes these modules."""

    def find_spec(self, name: str, *rest: object):
        if name.partition(".")[0] in GIVEN:
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return GivenModule(spec.name)

    def exec_module(self, module):
        """There is nothing to run."""


class Unfit(Exception):
    """Why no function can be asked."""


def load(name: str, path: Path):
    """Import a module from its file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(node, names: dict, file: str):
    """Run one statement, of a learner or of what an exercise gives."""
    exec(compile(cells.ast.Module([node], []), file, "exec"), names)


def give(sources: dict):
    """Make the modules that hold what an exercise gives, from its sources by full name."""
    for full, source in sources.items():
        place, _, name = full.rpartition(".")
        names = {"__name__": place}
        for node in cells.parse(source):
            run(node, names, cells.NO_FILE)
        setattr(importlib.import_module(place), name, names[name])


def choose(job: dict, listed: list, faults: dict) -> tuple[str, list, str]:
    """Find the function of an exercise: its name, the statements before it is checked, and a note."""
    before = [one for one in listed if one.cell < job["until"]]
    for where in (before, listed):
        if any(job["name"] in one.binds for one in where):
            return job["name"], where, ""
    for name in job["called"]:  # by the learner's own check cells
        if any(name in one.binds for one in listed):
            return name, listed, f"{job['name']} is called {name} here"
    for cell in job["solutions"]:
        if cell in faults:
            raise Unfit(f"the cell of {job['name']} cannot be read ({faults[cell]})")
        if len(names := cells.functions(listed, cell)) == 1:
            return names[0], listed, f"{job['name']} is called {names[0]} here"
    raise Unfit(f"there is no function {job['name']}: write one with this name")


def define(job: dict) -> tuple[dict, object]:
    """Run the statements that the function needs: what is said about it, and the function."""
    give(job["given"])
    listed, faults = cells.statements(job["cells"])
    name, listed, note = choose(job, listed, faults)
    names, chosen = zygote.names_of("__main__"), cells.needed(listed, name)
    files = [f"<cell {number}\ud800>" for number in job["numbers"]]  # no files: see cells.NO_FILE
    for file, source in zip(files, job["cells"]):
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    for one in chosen:
        try:
            run(one.node, names, files[one.cell])
        except (Exception, SystemExit) as error:
            what = f"cell {job['numbers'][one.cell]} raises {type(error).__name__}: {error}"
            raise Unfit(f"{name} needs what cannot be run here: {what}") from None
    if not callable(names[name]):
        raise Unfit(f"{name} is no function")
    return {"source": cells.text(chosen), "note": note}, names[name]


def answer(job: dict) -> bytes:
    """Define the function and ask it, line by line, so that nothing is lost when it is stopped."""
    if "questions" not in job:
        return programs(job)
    sys.setrecursionlimit(DEPTH)
    try:
        said, function = define(job)
    except Unfit as fault:
        write(json.dumps({"unfit": str(fault).replace("\ud800", "")}))
        return b""
    write(json.dumps(said))
    for question, slopes in job["questions"]:
        write(line := asking.reply(function, question, slopes))
        if line.startswith('{"fault"'):  # it decides
            break
    return b""


def write(line: str):
    os.write(zygote.OUTPUTS, line.encode(errors="replace") + b"\n")


def lock_in(limits: dict, parent: int, rules: object):
    """The limit on memory comes on top of what the modules take."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    taken = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    lock(limits | {"memory_mb": int(limits["memory_mb"] + taken)}, parent, rules)


def warm_up():
    """What libraries do once, such as looking at the processor, a locked child cannot do."""
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    x = torch.ones(3, 3, requires_grad=True)
    for kind in (torch.float32, torch.float64):
        (x.to(kind) @ x.to(kind)).softmax(1).logsumexp(0).sum().backward()
    asking.reply(lambda one: one.no_such_name, '[{"tensor": [1.0]}]', [0])
    asking.reply(lambda one: one @ one.T, '[{"tensor": [1.0]}]', [0])  # torch warns, torch raises
    repr(x), x.numpy(force=True) @ x.numpy(force=True)


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    zygote_path, asking_path, *sys.path[:] = sys.argv[1:]
    sys.argv[1:] = []
    for module in MODULES.split():
        importlib.import_module(module)
    zygote, asking = load("zygote", zygote_path), load("asking", asking_path)
    cells, kinds = load("cells", HERE / "cells.py"), load("kinds", HERE / "kinds.py")
    asking.MAKERS.update(kinds.MAKERS)
    warm_up()
    # The text of a line is in the cache, or nowhere: a child opens no files.
    linecache.clearcache()
    linecache.updatecache, linecache.checkcache = lambda *rest: [], lambda *rest: None
    sys.meta_path.append(Given())
    programs, lock = zygote.answer, zygote.lock_in
    zygote.answer, zygote.lock_in = answer, lock_in
    zygote.main()
