"""The two search families: finding is hard, checking is easy, so reflection pays.

`signs`: the numbers stay in order, each gets a plus or a minus, the sum must hit the target.
Level n has n+1 numbers and 2^n sign patterns, of which exactly one is right.
`countdown`: the numbers may be used in any order with + - *, each exactly once, from left to right.

An attempt is written as a running total, then the target again, then a verdict:
`9+5=14-1=13:13 ok`. Restating the target next to the total is what makes the verdict easy.
"""

import ast
import itertools
import operator
import random
import re
from dataclasses import dataclass, replace
from fractions import Fraction

from r1lab.task import Problem, problem_id
from r1lab.world.words import NO, OK, QUESTIONS

SIGNS_LEVELS = (1, 2, 3, 4, 5)
COUNTDOWN_LEVELS = (1, 2)
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True)
class Attempt:
    """One try as the model wrote it.

    Attributes:
        moves: what was done to the running total, e.g. (("+", 5), ("-", 1)), after `start`.
        totals: the running totals as written, one per move.
        stated_target: the target as restated, None when missing.
        verdict: True for an ok, False for a no, None when missing.
        ordered: do the tries of this family have an order?
    """

    start: int
    moves: tuple[tuple[str, int], ...]
    totals: tuple[int, ...]
    stated_target: int | None
    verdict: bool | None
    ordered: bool = True

    @property
    def key(self) -> tuple:
        """Equal for attempts that try the same."""
        return self.start, self.moves

    @property
    def place(self) -> tuple[int, int] | None:
        """Length and number in binary counting: a minus is the digit 1, the last changes fastest."""
        digits = "".join("1" if op == "-" else "0" for op, _ in self.moves)
        return (len(digits), int(digits, 2)) if self.ordered else None

    @property
    def expression(self) -> str:
        """The attempt as an answer, e.g. `9+5-1`; parentheses only where precedence needs them."""
        return chain_expression(self.start, self.moves)

    def steps_right(self) -> list[bool]:
        """For each move: is the written total what the total before it gives?"""
        before = (self.start, *self.totals)
        return [
            OPERATORS[op](before[i], number) == self.totals[i]
            for i, (op, number) in enumerate(self.moves)
        ]


ATTEMPT = re.compile(r"(-?\d+)((?:[-+*]\d+=-?\d+)+)(?::(-?\d+))?\s*([a-zA-ZÀ-ÿ]+|[^\W\d_])?")
MOVE = re.compile(r"([-+*])(\d+)=(-?\d+)")
VERDICTS = {word: True for word in OK.values()} | {word: False for word in NO.values()}


def parse_attempts(text: str) -> list[Attempt]:
    """All attempts in a text, in order. Words that are no verdict leave `verdict` None."""
    attempts = []
    for start, chain, target, word in ATTEMPT.findall(text):
        moves = MOVE.findall(chain)
        verdict = VERDICTS.get(word)
        attempts.append(
            Attempt(
                start=int(start),
                moves=tuple((op, int(number)) for op, number, _ in moves),
                totals=tuple(int(total) for *_, total in moves),
                stated_target=int(target) if target else None,
                verdict=verdict,
            )
        )
    return attempts


def find_attempts(problem: Problem, completion: str) -> list[Attempt]:
    """The attempts of a completion of the two search families; only in `signs` they have an order."""
    if problem.family == "signs":
        return parse_attempts(completion)
    found = parse_attempts(completion) if problem.family == "countdown" else []
    return [replace(attempt, ordered=False) for attempt in found]


def chain_expression(start: int, moves: tuple[tuple[str, int], ...]) -> str:
    """Left-to-right moves as an expression of ordinary precedence."""
    text, has_sum = str(start), False
    for op, number in moves:
        if op == "*" and has_sum:
            text, has_sum = f"({text})", False
        has_sum = has_sum or op != "*"
        text += f"{op}{number}"
    return text


def write_attempt(start: int, moves: tuple[tuple[str, int], ...], target: int) -> tuple[str, bool]:
    """The attempt's text up to its verdict, e.g. `9+5=14-1=13:13`, and whether it hits."""
    text, total = str(start), start
    for op, number in moves:
        total = OPERATORS[op](total, number)
        text += f"{op}{number}={total}"
    return f"{text}:{target}", total == target


def signs_candidates(numbers: list[int]) -> list[tuple[tuple[str, int], ...]]:
    """All sign patterns in order: all plus first, the last sign changing fastest."""
    return [
        tuple(zip(signs, numbers[1:])) for signs in itertools.product("+-", repeat=len(numbers) - 1)
    ]


def signs_problem(rng: random.Random, level: int, lang: str) -> Problem:
    """A puzzle of `level`+1 digits with exactly one solution."""
    while True:
        numbers = [rng.randint(1, 9) for _ in range(level + 1)]
        candidates = signs_candidates(numbers)
        moves = rng.choice(candidates)
        totals = [numbers[0] + sum(n if op == "+" else -n for op, n in c) for c in candidates]
        target = totals[candidates.index(moves)]
        if totals.count(target) == 1:
            break
    return _search_problem("signs", numbers, target, chain_expression(numbers[0], moves), level, lang)


def countdown_problem(rng: random.Random, level: int, lang: str) -> Problem:
    """A puzzle of `level`+1 digits; the target is what a random chain of them gives."""
    numbers = [rng.randint(1, 9) for _ in range(level + 1)]
    order = rng.sample(numbers, len(numbers))
    moves = tuple((rng.choice("+-*"), number) for number in order[1:])
    target = int(write_attempt(order[0], moves, 0)[0].rsplit("=", 1)[1].split(":")[0])
    solution = chain_expression(order[0], moves)
    return _search_problem("countdown", numbers, target, solution, level, lang)


def _search_problem(
    family: str, numbers: list[int], target: int, solution: str, level: int, lang: str
) -> Problem:
    listed = ",".join(map(str, numbers))
    prompt = QUESTIONS[family][lang].format(target=target, numbers=listed)
    key = f"{listed}->{target}"  # the same puzzle in another language is the same problem
    return Problem(
        id=problem_id(family, key),
        family=family,
        level=level,
        lang=lang,
        prompt=prompt,
        solution=solution,
        meta={"numbers": numbers, "target": target},
    )


def verify_signs(answer: str, meta: dict) -> bool:
    """True when the answer uses the numbers in order, one sign each, and hits the target.

    It may state the target: `9+5-1` and `9+5-1=13` are both right.
    """
    expression = _without_target(answer, meta["target"])
    if expression is None:
        return False
    compact = expression.replace(" ", "")
    if not re.fullmatch(r"\d+(?:[-+]\d+)*", compact):
        return False
    terms = re.findall(r"[-+]?\d+", compact)
    right_numbers = [abs(int(term)) for term in terms] == list(meta["numbers"])
    return right_numbers and sum(map(int, terms)) == meta["target"]


def verify_countdown(answer: str, meta: dict) -> bool:
    """True when the expression uses each number exactly once and has the target's value.

    It may state the target, as `(9+5)*2=28`. `operators` in `meta` can allow division.
    """
    expression = _without_target(answer, meta["target"])
    operators = re.escape(meta.get("operators", "+-*"))
    if expression is None or not re.fullmatch(rf"[\d{operators}() ]{{1,100}}", expression):
        return False
    try:
        value, used = _evaluate(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return False
    return value == meta["target"] and sorted(used) == sorted(meta["numbers"])


def _without_target(answer: str, target: int) -> str | None:
    """The expression of an equation that ends in the target; None where it ends in anything else."""
    expression, equals, stated = answer.partition("=")
    return expression if not equals or stated.strip() == str(target) else None


def _evaluate(node: ast.expr) -> tuple[int | Fraction, list[int]]:
    """Value of a parsed expression of + - * / and the numbers it uses. Nothing is executed."""
    operators = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: Fraction,
    }  # fmt: skip
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value, [node.value]
    if isinstance(node, ast.BinOp) and type(node.op) in operators:
        left, used_left = _evaluate(node.left)
        right, used_right = _evaluate(node.right)
        return operators[type(node.op)](left, right), used_left + used_right
    raise ValueError("only + - * / of whole numbers")
