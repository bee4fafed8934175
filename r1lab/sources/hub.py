"""Data sets of the Hugging Face Hub, each in its own schema, as problems and as traces to learn from.

`SETS` is the table: where a data set is, its columns, how a row is read, and the public page or code
in which the columns were seen. A local copy comes before the Hub: `data/hub/NAME/SPLIT.jsonl` (or
.parquet, .csv), with the same columns.
"""

import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from r1lab.errors import InputError
from r1lab.sources import schemas
from r1lab.task import Problem, load_problems, problem_id

LOCAL = Path("data/hub")
FORMATS = {".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}


@dataclass(frozen=True)
class HubSet:
    """One data set of the Hub.

    Attributes:
        hub_id: its name there; `configs` and `split` say which part. Several configs are joined.
        columns: those that `read` needs.
        read: a row as a problem's fields, or None for a row to leave out (see `schemas`).
        schema: where in public the columns were read; or "schema not verified".
        family: decides how answers are checked (`task.CHECKERS`); the set's name if empty.
    """

    hub_id: str
    split: str
    columns: tuple[str, ...]
    read: Callable[[dict], dict | None]
    schema: str
    configs: tuple[str | None, ...] = ("default",)
    family: str = ""


GPQA = ("Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)))
CODE = ("question_content", "starter_code", "difficulty", "contest_date", "public_test_cases",
        "private_test_cases", "metadata")  # fmt: skip
SUBJECTS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra",
            "number_theory", "prealgebra", "precalculus")  # fmt: skip
CARD, HARNESS = "huggingface.co/datasets/{}", "lm-evaluation-harness, lm_eval/tasks/{}"

SETS = {
    "gsm8k": HubSet(
        "openai/gsm8k", "test", ("question", "answer"), schemas.read_gsm8k,
        CARD.format("openai/gsm8k"), ("main",),
    ),
    "math": HubSet(
        "EleutherAI/hendrycks_math", "train", ("problem", "level", "solution"), schemas.read_math,
        HARNESS.format("hendrycks_math/utils.py") + "; card of JeremiahZ/hendrycks_math_merged",
        SUBJECTS,
    ),
    "math500": HubSet(
        "HuggingFaceH4/MATH-500", "test", ("problem", "answer", "level"), schemas.read_math,
        HARNESS.format("hendrycks_math/hendrycks_math500.yaml") + "; card of macabdul9/MATH-500",
    ),
    "aime24": HubSet(
        "HuggingFaceH4/aime_2024", "train", ("problem", "answer"), schemas.read_answer,
        CARD.format("HuggingFaceH4/aime_2024"),
    ),
    "aime25": HubSet(
        "math-ai/aime25", "test", ("problem", "answer"), schemas.read_answer,
        HARNESS.format("aime/aime25.yaml"),
    ),
    "gpqa": HubSet(
        "Idavidrein/gpqa", "train", GPQA, schemas.read_gpqa,
        HARNESS.format("gpqa/zeroshot/utils.py"), ("gpqa_diamond",),
    ),
    "livecodebench": HubSet(
        "lighteval/code_generation_lite", "test", CODE, schemas.read_livecodebench,
        "lighteval, src/lighteval/tasks/tasks/lcb; LiveCodeBench, lcb_runner/benchmarks",
        ("v4_v5",),
    ),
    "countdown34": HubSet(
        "Jiayi-Pan/Countdown-Tasks-3to4", "train", ("target", "nums"), schemas.read_countdown,
        "TinyZero, examples/data_preprocess/countdown.py", family="countdown",
    ),
    "openr1_math": HubSet(
        "open-r1/OpenR1-Math-220k", "train",
        ("problem", "answer", "generations", "correctness_math_verify"), schemas.read_openr1,
        CARD.format("open-r1/OpenR1-Math-220k"),
    ),
    "openthoughts": HubSet(
        "open-thoughts/OpenThoughts-114k", "train",
        ("problem", "deepseek_reasoning", "deepseek_solution", "ground_truth_solution"),
        schemas.read_openthoughts, CARD.format("open-thoughts/OpenThoughts-114k"), ("metadata",),
    ),
}  # fmt: skip


def load_source(source: str) -> list[Problem]:
    """Problems from a JSONL file, or from a set of the table: `gsm8k`, `math:train[:2000]`.

    What follows the colon is a split, as `datasets` writes it; without it, the set's own.
    Raises InputError where there are none."""
    name, _, split = source.partition(":")
    if name in SETS:
        return [_problem(name, row) for row in read_rows(name, split)]
    if Path(source).suffix == ".jsonl":
        return load_problems(source)
    raise InputError(
        f"there are no problems {source!r}: give a .jsonl file, or one of {', '.join(SETS)}, with a "
        "split if need be, as in math:train[:2000]."
    )


def load_rows(source: str) -> list[dict]:
    """The rows of `load_source`; of a set that is not in the table, owner/name or
    owner/name/config, its rows as they are.

    Raises InputError where there are none."""
    name, _, split = source.partition(":")
    by_id = {spec.hub_id: name for name, spec in SETS.items()}
    name = by_id.get(name, name)
    if name in SETS:
        return [asdict(problem) for problem in load_source(f"{name}:{split}")]
    owner, _, rest = name.partition("/")
    title, _, config = rest.partition("/")
    other = HubSet(f"{owner}/{title}", split or "train", (), dict, "", (config or None,))
    parts = _local(name, other.split) or _from_hub(name, other, other.split)
    return [row for part in parts for row in part]


def load_traces(source: str, opened: bool = False) -> list[dict]:
    """Rows to learn from (see `training.sft`): a problem's id, family, level, lang and prompt, and
    the completion. `source` as in `load_source`; `opened` leaves out the opening `<think>`, which
    the template "r1" gives. Raises InputError where a set has no traces."""
    name, _, split = source.partition(":")
    if name not in SETS:
        raise InputError(f"there is no data set {name!r}; choose one of {', '.join(SETS)}.")
    rows = read_rows(name, split)
    if "completion" not in rows[0]:
        raise InputError(f"{name} has no traces to learn from; openr1_math and openthoughts have.")
    traces = []
    for row in rows:
        problem, completion = _problem(name, row), row["completion"]
        if opened:
            completion = re.sub(r"^\s*<think>\n?", "", completion)
        traces.append({
            "id": problem.id, "family": problem.family, "level": problem.level,
            "lang": problem.lang, "prompt": problem.prompt, "completion": completion,
        })  # fmt: skip
    return traces


def save_traces(source: str, folder: Path, opened: bool = False) -> Path:
    """Store `load_traces` as a data set to learn from, in a folder named after it; returns that.

    One that is there already is used as it is."""
    import datasets

    kind = "opened" if opened else "whole"
    target = folder / f"{re.sub('[^a-z0-9_]+', '-', source).strip('-')}-{kind}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(".partial", target.name, folder)
        datasets.Dataset.from_list(load_traces(source, opened)).save_to_disk(partial)
        try:
            os.rename(partial, target)
        except OSError:  # another process of the run was faster
            shutil.rmtree(partial)
    return target


def _problem(name: str, row: dict) -> Problem:
    fields = {"level": 1, **row}
    fields.pop("completion", None)
    family = SETS[name].family or name
    return Problem(id=problem_id(name, row["prompt"]), family=family, lang="en", **fields)


def read_rows(name: str, split: str = "") -> list[dict]:
    """The rows of a set, read: its local copy, or what the Hub has.

    Raises InputError: neither can be had, columns are missing, or a row cannot be read."""
    spec = SETS[name]
    parts = _local(name, split or spec.split) or _from_hub(name, spec, split or spec.split)
    rows = []
    for part in parts:
        if missing := [column for column in spec.columns if column not in part.column_names]:
            raise InputError(
                f"{name}: expected the columns {', '.join(spec.columns)} and found "
                f"{', '.join(part.column_names)}: {', '.join(missing)} missing; the columns were "
                f"read in {spec.schema}."
            )
        for number, row in enumerate(part, 1):
            try:
                read = spec.read(row)
            except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
                raise InputError(
                    f"{name}, row {number}: cannot be read ({type(error).__name__}: {error}); its "
                    f"columns should be as in {spec.schema}."
                ) from error
            rows += [read] if read else []
    if not rows:
        raise InputError(f"{name} has no row to use in the split {split or spec.split}.")
    return rows


def _local(name: str, split: str) -> list:
    """The local copy as one data set in a list; empty where there is none."""
    import datasets  # slow to import

    stem = re.match(r"\w+", split)
    for suffix, kind in FORMATS.items():
        path = LOCAL / name / f"{stem[0] if stem else split}{suffix}"
        if path.is_file():
            try:
                files = {stem[0] if stem else split: str(path)}
                return [datasets.load_dataset(kind, data_files=files, split=split)]
            except Exception as error:  # pyarrow and datasets raise a dozen kinds
                raise InputError(
                    f"{path} cannot be read as {kind} ({_first_line(error)}); fix or remove it."
                ) from error
    return []


def _from_hub(name: str, spec: HubSet, split: str) -> list:
    import datasets

    try:
        return [datasets.load_dataset(spec.hub_id, config, split=split) for config in spec.configs]
    except Exception as error:  # no network, no such set, terms not accepted: all the same here
        raise InputError(
            f"{spec.hub_id} cannot be had from the Hugging Face Hub ({_first_line(error)}): check "
            f"the network and, for a gated set, that you accepted its terms; or put a copy"
            f"{' with the columns ' * bool(spec.columns)}{', '.join(spec.columns)} at "
            f"{LOCAL / name / (split.partition('[')[0] + '.jsonl')} (or .parquet, .csv)."
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"
