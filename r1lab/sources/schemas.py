"""How a row of each data set in `hub.SETS` reads as a problem, and how some are checked.

Each reader returns a problem's fields (prompt, solution and, where the row has them, level, tests,
meta; a trace's completion), or None for a row to leave out.
"""

import base64
import itertools
import json
import pickletools
import random
import re
import zlib
from fractions import Fraction

LETTERS = "ABCD"
# LiveCodeBench's contests that the paper evaluates on, 2024-08 to 2025-01 (v2 D.1).
CONTESTS = ("2024-08-01", "2025-02-01")


def read_gsm8k(row: dict) -> dict:
    """The answer stands behind #### at the end of the worked solution."""
    solution = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return {"prompt": row["question"], "solution": solution}


def read_math(row: dict) -> dict:
    """MATH has the answer in the solution's last box, MATH-500 in a column; levels are 1 to 5."""
    level = re.search(r"\d", str(row["level"]))
    solution = row.get("answer") or last_boxed(row["solution"])
    return {
        "prompt": row["problem"], "solution": solution, "level": int(level[0]) if level else 0,
    }  # fmt: skip


def last_boxed(text: str) -> str:
    r"""What the last `\boxed{...}` holds; "" where there is none."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return ""
    depth = itertools.accumulate((char == "{") - (char == "}") for char in text[start:])
    end = next((place for place, open_ in enumerate(depth) if open_ == 0 and place > 6), None)
    return text[start + 7 : start + end] if end else ""


def read_answer(row: dict) -> dict:
    return {"prompt": row["problem"], "solution": str(row["answer"])}


def read_gpqa(row: dict) -> dict:
    """Four options, in an order drawn from the question: the same in every run."""
    options = [row["Correct Answer"], *(row[f"Incorrect Answer {n}"] for n in (1, 2, 3))]
    order = random.Random(row["Question"]).sample(range(4), 4)
    listed = [f"{letter}) {options[place].strip()}" for letter, place in zip(LETTERS, order)]
    prompt = "\n".join([row["Question"].strip(), "", *listed])
    letter = LETTERS[order.index(0)]
    return {"prompt": prompt, "solution": letter, "meta": {"letter": letter}}


def verify_choice(answer: str, meta: dict) -> bool:
    """Does the answer choose `meta["letter"]`, and no other? `B`, `(B)`, `B) iron`, `answer is B`."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|boxed)|[{}$*]", "", answer).strip()
    whole = re.fullmatch(r"\(?([A-D])(?:[).:].*)?", text, re.DOTALL)
    said = re.findall(
        r"(?i:answer|option|choice)\b(?:\s+is)?\s*:?\s*\(?([A-D])\b"
        r"(?!\)?\s*(?:or|and|,|/)\s*\(?[A-D]\b)", text
    )  # fmt: skip
    marked = re.findall(r"\(?\b([A-D])\b[).:]", text)
    return {whole[1]} | set(marked) == {meta["letter"]} if whole else set(said) == {meta["letter"]}


def read_livecodebench(row: dict) -> dict | None:
    """Public and private tests together; None outside the contests of the paper's window."""
    if not CONTESTS[0] <= str(row["contest_date"])[:10] < CONTESTS[1]:
        return None
    cases = json.loads(row["public_test_cases"]) + _private(row["private_test_cases"])
    method = json.loads(row["metadata"] or "{}").get("func_name")
    if method:
        inputs = [[json.loads(line) for line in case["input"].split("\n")] for case in cases]
        outputs = [json.loads(case["output"]) for case in cases]
        task = f"Complete this class, in Python:\n\n{row['starter_code']}"
    else:
        inputs, outputs = ([case[key] for case in cases] for key in ("input", "output"))
        task = "Write a Python program that reads standard input and prints to standard output."
    entry = f"Solution.{method}" if method else "stdin"
    tests = [{"input": x, "output": y, "entry": entry} for x, y in zip(inputs, outputs)]
    level = {"easy": 1, "medium": 2, "hard": 3}.get(row["difficulty"], 0)
    prompt = f"{row['question_content'].strip()}\n\n{task}"
    return {"prompt": prompt, "solution": "", "tests": tests, "level": level}


def _private(text: str) -> list[dict]:
    """Tests as JSON, or as JSON in a pickled string, deflated, in base 64. The pickle is searched
    for its string and never loaded: loading one can run anything."""
    if not text.lstrip().startswith("["):
        packed = zlib.decompress(base64.b64decode(text))
        strings = [held for _, held, _ in pickletools.genops(packed) if isinstance(held, str)]
        text = "".join(strings)
    return json.loads(text)


def read_countdown(row: dict) -> dict | None:
    """Any operators, each number once; None where nothing reaches the target."""
    numbers, target = list(row["nums"]), row["target"]
    solution = solve_countdown(tuple((Fraction(n), str(n)) for n in numbers), target)
    prompt = (
        f"Use each of the numbers {', '.join(map(str, numbers))} exactly once, with + - * / and "
        f"parentheses, to write an expression that equals {target}"
    )
    return solution and {
        "prompt": prompt, "solution": solution, "level": len(numbers) - 1,
        "meta": {"numbers": numbers, "target": target, "operators": "+-*/"},
    }  # fmt: skip


def solve_countdown(parts: tuple[tuple[Fraction, str], ...], target: int) -> str | None:
    """An expression of all parts (value, text) that has the target's value, or None."""
    if len(parts) == 1:
        return parts[0][1] if parts[0][0] == target else None
    for left, right in itertools.permutations(range(len(parts)), 2):
        (a, x), (b, y) = parts[left], parts[right]
        rest = tuple(part for place, part in enumerate(parts) if place not in (left, right))
        joined = [(a - b, f"({x}-{y})")] + ([(a / b, f"({x}/{y})")] if b else [])
        if left < right:
            joined += [(a + b, f"({x}+{y})"), (a * b, f"({x}*{y})")]
        for part in joined:
            if found := solve_countdown((part, *rest), target):
                return found
    return None


def read_openr1(row: dict) -> dict | None:
    """The first trace that math-verify accepted; None where there is none."""
    verified = zip(row["generations"], row["correctness_math_verify"])
    trace = next((text for text, right in verified if right), None)
    return trace and {"prompt": row["problem"], "solution": row["answer"], "completion": trace}


def read_openthoughts(row: dict) -> dict:
    """Reasoning and solution, joined as R1 writes them."""
    reasoning, solution = row["deepseek_reasoning"].strip(), row["deepseek_solution"].strip()
    return {
        "prompt": row["problem"], "solution": row["ground_truth_solution"] or "",
        "completion": f"<think>\n{reasoning}\n</think>\n\n{solution}",
    }  # fmt: skip
