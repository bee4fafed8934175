"""Data sets of the Hugging Face Hub, each in its own columns, as problems and as traces to learn from.

`hub.toml` is the table: where a data set is, and how a row is read. A local copy comes before the Hub:
`data/hub/NAME/SPLIT.jsonl` (or .parquet, .csv), with the same columns.
"""

import base64
import itertools
import json
import pickletools
import random
import re
import zlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

from filelock import FileLock

from r1lab.errors import InputError, reason
from r1lab.files import Row, read_rows, read_toml, whole
from r1lab.rewards.guard import chosen
from r1lab.sources.rows import final_answer, read_each, read_problems
from r1lab.task import Problem, problem_id

LOCAL = Path("data/hub")
# LiveCodeBench's contests that the paper evaluates on, 2024-08 to 2025-01 (v2 D.1).
CONTESTS = ("2024-08-01", "2025-02-01")
LEVELS = {"easy": 1, "medium": 2, "hard": 3}
TRACE = ("id", "family", "level", "lang", "prompt", "completion")


def read_gsm8k(row: dict) -> dict:
    """Read a word problem. Its answer follows #### at the end of the worked solution."""
    return {"prompt": row["question"], "solution": final_answer(row["answer"])}


def read_math(row: dict) -> dict:
    """Read MATH, whose answer is in the solution's last box, and MATH-500, which has a column."""
    level = re.search(r"\d", str(row["level"]))  # 1 to 5
    solution = row.get("answer") or final_answer(row["solution"])
    if solution == row["solution"]:
        raise ValueError("its solution has no \\boxed answer")
    return {"prompt": row["problem"], "solution": solution, "level": int(level[0]) if level else 0}


def read_answer(row: dict) -> dict:
    """Read a problem with its answer in a column."""
    return {"prompt": row["problem"], "solution": str(row["answer"])}


def read_gpqa(row: dict) -> dict:
    """Show the four options in an order drawn from the question: the same in every run."""
    options = [row["Correct Answer"], *(row[f"Incorrect Answer {n}"] for n in (1, 2, 3))]
    order = random.Random(row["Question"]).sample(range(4), 4)
    listed = [f"{letter}) {options[place].strip()}" for letter, place in zip("ABCD", order)]
    prompt = "\n".join([row["Question"].strip(), "", *listed])
    letter = "ABCD"[order.index(0)]
    return {"prompt": prompt, "solution": letter, "meta": {"letter": letter}}


def verify_choice(answer: str, meta: dict) -> bool:
    """Does the answer choose `meta["letter"]`, and no other? `B`, `(B)`, `B) iron`, `answer is B`."""
    return chosen(answer) == meta["letter"]


def read_livecodebench(row: dict) -> dict | None:
    """Join public and private tests; None outside the contests of the paper's window."""
    if not CONTESTS[0] <= str(row["contest_date"])[:10] < CONTESTS[1]:
        return None
    cases = json.loads(row["public_test_cases"]) + _private(row["private_test_cases"])
    tests = [{"input": case["input"], "output": case["output"], "entry": "stdin"} for case in cases]
    task = "Write a Python program that reads standard input and prints to standard output."
    if method := json.loads(row["metadata"] or "{}").get("func_name"):
        for test in tests:
            test["input"] = [json.loads(line) for line in test["input"].split("\n")]
            test |= {"output": json.loads(test["output"]), "entry": f"Solution.{method}"}
        task = f"Complete this class, in Python:\n\n{row['starter_code']}"
    return {
        "prompt": f"{row['question_content'].strip()}\n\n{task}",
        "solution": "",
        "tests": tests,
        "level": LEVELS.get(row["difficulty"], 0),
    }


def _private(text):
    """Read tests in JSON, or in JSON in a pickled string, deflated, in base 64. The pickle is searched
    for its string and never loaded: loading one can run anything."""
    if not text.lstrip().startswith("["):
        packed = zlib.decompress(base64.b64decode(text))
        text = "".join(held for _, held, _ in pickletools.genops(packed) if isinstance(held, str))
    return json.loads(text)


def read_countdown(row: dict) -> dict:
    """Ask for any operators, each number once. A solution is looked for only where it is read
    (`task.gold_answer`): half a million of them take an hour."""
    numbers, target = list(row["nums"]), row["target"]
    prompt = (
        f"Use each of the numbers {', '.join(map(str, numbers))} exactly once, with + - * / and "
        f"parentheses, to write an expression that equals {target}"
    )
    return {
        "family": "countdown", "prompt": prompt, "solution": "", "level": len(numbers) - 1,
        "meta": {"numbers": numbers, "target": target, "operators": "+-*/"},
    }  # fmt: skip


def solve_countdown(meta: Mapping) -> str:
    """Find an expression of all numbers that has the target's value; "" if there is none."""
    return _joined([(Fraction(n), str(n)) for n in meta["numbers"]], meta["target"])


def _joined(parts, target):
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else ""
    for left, right in itertools.permutations(range(len(parts)), 2):
        (a, x), (b, y) = parts[left], parts[right]
        rest = [part for place, part in enumerate(parts) if place not in (left, right)]
        joined = [(a - b, f"({x}-{y})")] + ([(a / b, f"({x}/{y})")] if b else [])
        joined += [(a + b, f"({x}+{y})"), (a * b, f"({x}*{y})")] if left < right else []
        for part in joined:
            if solved := _joined((part, *rest), target):
                return solved
    return ""


def read_openr1(row: dict) -> dict | None:
    """Take the first trace that math-verify accepted; None where there is none."""
    verified = zip(row["generations"], row["correctness_math_verify"])
    trace = next((text for text, right in verified if right), None)
    return trace and {"prompt": row["problem"], "solution": row["answer"], "completion": trace}


def read_openthoughts(row: dict) -> dict:
    """Join reasoning and solution as R1 writes them."""
    reasoning, solution = row["deepseek_reasoning"].strip(), row["deepseek_solution"].strip()
    return {
        "prompt": row["problem"], "solution": row["ground_truth_solution"] or "",
        "completion": f"<think>\n{reasoning}\n</think>\n\n{solution}",
    }  # fmt: skip


SETS: dict[str, Row] = read_toml(__file__, "hub")  # which says what a row holds
# Columns that tell whose rows these are, in whatever file.
SCHEMAS = {"countdown34": {"nums", "target"}, "math": {"problem", "level", "type", "solution"}}
Rows = str | Path | Iterable  # mappings, a DataFrame; or where they are: a .jsonl file, a set of the Hub


def load_source(source: str) -> list[Problem]:
    """Read the problems of a .jsonl file, or of a set as `load_rows` names it."""
    return read_problems(rows_of(source), source.partition(":")[0])


def rows_of(source: Rows) -> Iterable[Mapping]:
    """Read the rows of a .jsonl file or, as hub:NAME or NAME, of a set of the Hub. Rows in the columns
    of Countdown or MATH are read as those; others stay as they are."""
    if isinstance(source, (str, Path)):
        if not str(source).endswith(".jsonl"):
            return load_rows(str(source).removeprefix("hub:"))
        source = read_rows(source, complete=True)
    rows = source.to_dict("records") if hasattr(source, "iterrows") else list(source)
    for name, columns in SCHEMAS.items():
        if rows and columns <= dict(rows[0]).keys():
            return read_set(name, SETS[name], rows)
    return rows


def load_rows(source: str) -> list[dict]:
    """Read the rows of a set: of `SETS` as fields of problems, of any other as they are.

    Args:
        source: `gsm8k`, `math:train[:2000]` (a split, as `datasets` writes it), or for sets that are
            not in the table owner/name or owner/name/config.
    Raises:
        InputError: there is no such set, it cannot be had, or a row cannot be read.
    """
    name, _, split = source.partition(":")
    name = {spec["hub_id"]: short for short, spec in SETS.items()}.get(name, name)
    if name in SETS:
        spec = SETS[name]
    elif "/" in name:
        owner, title, *config = name.split("/", 2)
        spec = {"hub_id": f"{owner}/{title}", "split": "train", "configs": config or [None]}
    else:
        raise InputError(
            f"there are no problems {source!r}: give a .jsonl file, a set of the Hub as owner/name, or "
            f"one of {', '.join(SETS)}, with a split if need be, as in math:train[:2000]."
        )
    split = split or spec["split"]
    rows = read_set(name, spec, _open(name, spec, split))
    if not rows:
        raise InputError(f"{name} has no row to use in the split {split}.")
    return rows


def read_set(name: str, spec: Row, rows: Iterable[Mapping]) -> list[dict]:
    """Read rows of a set's columns. Raises InputError naming the row that cannot be read."""
    reader = globals()[spec["read"]] if name in SETS else dict
    read = read_each(rows, reader, name, f", and should be as in {spec['hub_id']}")
    rows = [fields for fields in read if fields]
    if name in SETS:
        usual = {"family": name, "level": 1, "lang": "en"}
        rows = [{"id": problem_id(name, fields["prompt"]), **usual, **fields} for fields in rows]
    return rows


def _open(name, spec, split):
    """Open the local copy, or else what the Hub has in each config."""
    import datasets  # slow to import

    stem, folder = split.partition("[")[0], LOCAL / name
    copies = sorted(folder.glob(f"{stem}.*"))
    try:
        if copies:
            return datasets.load_dataset(str(folder), data_files={stem: copies[0].name}, split=split)
        configs = spec.get("configs", [None])
        parts = [datasets.load_dataset(spec["hub_id"], config, split=split) for config in configs]
        return itertools.chain(*parts)
    except Exception as error:  # no network, no such set, terms not accepted, a damaged file
        remedy = (
            "check the network and, for a gated set, that you accepted its terms; or put a copy at "
            f"{folder / stem}.jsonl (or .parquet, .csv)"
        )
        if copies:
            remedy = f"fix or remove {copies[0]}"
        raise InputError(f"{spec['hub_id']} cannot be had ({reason(error)}): {remedy}.") from error


def save_traces(source: str, opened: bool = False) -> Path:
    """Store rows to learn from (see `training.sft`) in LOCAL, named after the set, once; return where.

    They have the columns TRACE. `opened` leaves out the opening `<think>`, which the template "r1"
    gives. Raises InputError where the set has no traces."""
    import datasets

    kind = "opened" if opened else "whole"
    target = LOCAL / f"{re.sub('[^a-z0-9_]+', '-', source).strip('-')}-{kind}"
    LOCAL.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCAL / f".{target.name}.lock"):  # the first of several processes reads them
        if target.exists():
            return target
        rows = load_rows(source)
        if not rows[0].keys() >= set(TRACE):
            raise InputError(f"{source} has no traces to learn from; openr1_math and openthoughts have.")
        traces = [{column: row[column] for column in TRACE} for row in rows]
        for trace in traces if opened else ():
            trace["completion"] = re.sub(r"^\s*<think>\n?", "", trace["completion"])
        with whole(target) as partial:
            datasets.Dataset.from_list(traces).save_to_disk(partial)
    return target
