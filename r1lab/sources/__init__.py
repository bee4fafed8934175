"""Tasks of other people's: from data sets, files, the Hub, reasoning-gym, and `my_task.py:task`.

`Task.from_dataset` and its like are the functions `from_…` here; `load_task` is the command line's
`--task`.
"""

import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from r1lab.errors import InputError, reason
from r1lab.sources.gym import RULES, from_gym, from_verifiers
from r1lab.sources.hub import Rows, rows_of
from r1lab.sources.rows import hold_out, read_problems
from r1lab.task import Check, Problem, Rewards, Task


def from_dataset(
    data: Rows | Mapping[str, Iterable[Mapping]],
    prompt: str = "question",
    solution: str | None = "answer",
    rewards: Rewards | None = None,
    test: int | Rows = 64,
    template: str | Callable[[Problem], str] = "chat",
    check: Check | None = None,
    level: str | None = None,
    name: str = "data",
    **asking,
) -> Task:
    """Make a task of rows: a `datasets.Dataset` or `DatasetDict`, a DataFrame, or a list of dicts.

    All columns reach the reward functions. A DatasetDict is trained on its `train` and tested on
    its `test`, where it has one.

    Args:
        prompt, solution, level: names of columns, see `rows.read_problems`.
        rewards: name -> function, or (function, weight); None: accuracy, and a tenth for format.
        test: so many rows are held out; or rows of their own.
        asking: more fields of the task: `examples`, `chat_template_kwargs`.
    Raises:
        InputError: a column or split is missing, a row cannot be read, or there are too few.
    """
    if isinstance(data, Mapping):
        if "train" not in data:
            raise InputError(f"there is no split 'train' among {', '.join(map(str, data))}.")
        test = data.get("test", data.get("validation", test)) if isinstance(test, int) else test
        data = data["train"]
    columns = (name, prompt, solution, level)
    problems = read_problems(rows_of(data), *columns)
    if isinstance(test, int):
        problems, held = hold_out(problems, test)
    else:
        held = read_problems(rows_of(test), *columns)
    return Task(name, problems, held, rewards or RULES, check, template, **asking)


def from_jsonl(path: str | Path, **options) -> Task:
    """Call `from_dataset` on a file with one JSON object a line; `test` may be such a file, too."""
    return from_dataset(path, **{"name": Path(path).stem, **options})


def from_hub(source: str, **options) -> Task:
    """Make a task of a set of the Hub, as `gsm8k:train`, `math:train[:2000]` or `owner/name:split`.

    Sets of `hub.SETS` are read as their table says; of others, `options` name the columns as in
    `from_dataset`.
    """
    return from_dataset(f"hub:{source}", **{"name": source.partition(":")[0], **options})


for _door in (from_dataset, from_jsonl, from_hub, from_gym, from_verifiers):
    setattr(Task, _door.__name__, staticmethod(_door))


def load_task(
    task: str | Task, test: str = "", template: str = "", rewards: Sequence[str] = ()
) -> Task:
    """Load the task that a command line names: my_task.py:task, gym:NAME, hub:SET or a .jsonl file.

    Args:
        test: other problems to test on: hub:SET or a .jsonl file.
        template: in place of the task's own.
        rewards: paid besides, each as my.py:function.
    Raises:
        InputError: there is no such thing, or it cannot be loaded.
    """
    opened = task if isinstance(task, Task) else _open(task, test)
    more = {source.rpartition(":")[2]: load_object(source, "reward") for source in rewards}
    settings = opened.settings
    if not isinstance(task, Task):
        settings = {"task": task, "test": test, "template": template, "reward": list(rewards)}
    return replace(
        opened, rewards={**opened.rewards, **more}, template=template or opened.template,
        settings=settings,
    )  # fmt: skip


def _open(source, test):
    kind, _, name = source.partition(":")
    if kind == "hub":
        return from_hub(name, test=test or 64)
    if source.endswith(".jsonl"):
        return from_jsonl(source, test=test or 64)
    if kind == "gym":
        if test:
            raise InputError(f"{source} has test problems that its scorer knows; leave out {test}.")
        return from_gym(name)
    task = load_object(source, "task")
    if not isinstance(task, Task):
        raise InputError(f"{source} is of type {type(task).__name__}; it must be a Task.")
    return replace(task, test=read_problems(rows_of(test), task.name)) if test else task


FORMS = {"task": "my_file.py:name, gym:NAME, hub:NAME or a .jsonl file", "reward": "my_file.py:name"}


def load_object(source: str, what: str):
    """Load a task or a reward that a Python file calls by a name, given as FILE.py:NAME.

    Raises InputError where the file is missing or does not import, or has no such name.
    """
    path, _, name = source.rpartition(":")
    if not path.endswith(".py"):
        raise InputError(f"{source!r} names no {what}; give {FORMS[what]}.")
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; a {what} is given as my_file.py:name.")
    file = Path(path).resolve()
    defined = _names_in(file, file.stat().st_mtime_ns)
    if name not in defined:
        names = [one for one in defined if not one.startswith("_")]
        raise InputError(f"{path} has no {name!r}; it has {', '.join(names) or 'no names'}.")
    return defined[name]


@lru_cache
def _names_in(path, changed):
    """Run the file, once until it is changed, and give what it names. Other processes get its functions by value, since they
    belong to no module that can be imported."""
    try:
        return runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        raise InputError(f"{path} does not import ({reason(error)}).") from error
