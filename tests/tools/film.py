"""Draw the film of the README: one held-out puzzle, asked at four moments of the stored run.

    python -m tests.tools.film

The tree holds every way to choose the signs. What the model tries lights up in the order in which it
wrote it. The file is one SVG with CSS animation, in light and dark; where a reader prefers no motion it
shows the last moment.
"""

import math
from html import escape
from itertools import product
from pathlib import Path

from r1lab.rewards import parse
from r1lab.run import Run
from r1lab.task import problem_of
from r1lab.world.puzzles import parse_attempts

RUN, FILE = Path("data/runs/zero"), Path("notebooks/images/search.svg")
PUZZLE, STEPS = "signs-8c8511c4a9b0", (0, 20, 60, 176)
WIDTH, HEIGHT = 860, 400
TREE_LEFT, TREE_WIDTH, TOP, ROW = 20, 500, 104, 76
LIST_LEFT, LINE = 560, 26
PAUSE, TRY, HOLD = 0.9, 0.55, 2.6  # seconds: before the first attempt, of each, after the last
FADE = 0.12
STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; --ink: #1f2328; --pale: #c9ced6;
  --soft: #59636e; --right: #0a7d5a; --wrong: #b4470b; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --pale: #444c56; --soft: #9198a1; --right: #3fcf9f;
  --wrong: #ff9b62; --paper: #0d1117; } }
text { fill: var(--ink); font-size: 15px }
.head { font-size: 20px; font-weight: 600 } .soft { fill: var(--soft) } .small { font-size: 13px }
.mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
.edge { stroke: var(--pale); stroke-width: 2 } .node { fill: var(--paper); stroke: var(--pale); stroke-width: 2 }
.right { fill: var(--right) } .wrong { fill: var(--wrong) }
.walk { stroke-width: 4; fill: none; stroke-linejoin: round; stroke-linecap: round }
.walk.right { stroke: var(--right); fill: none } .walk.wrong { stroke: var(--wrong); fill: none; stroke-opacity: .45 }
.card { fill: var(--paper); stroke: var(--pale) }
.mid { text-anchor: middle } .count { fill: var(--paper); font-size: 13px; font-weight: 600; text-anchor: middle }
"""


class Film:
    """Elements with the seconds at which they appear and go."""

    def __init__(self) -> None:
        self.still: list[str] = []
        self.moving: list[tuple[str, float, float]] = []
        self.clock = 0.0

    def show(self, element: str, start: float, end: float) -> None:
        self.moving.append((element, start, end))

    def svg(self, title: str) -> str:
        total, spans = self.clock, {}
        for _, start, end in self.moving:
            spans.setdefault((start, end), f"t{len(spans)}")
        rules = []
        for (start, end), name in spans.items():
            last = math.isclose(end, total)
            a, b = (100 * start / total, 100 * end / total)
            fade = 100 * FADE / total
            rules.append(
                f".{name} {{ opacity: {int(last)} }}\n"
                f"@keyframes {name} {{ 0%, {a:.3f}% {{ opacity: 0 }} {a + fade:.3f}%, {b - fade:.3f}% "
                f"{{ opacity: 1 }} {b:.3f}%, 100% {{ opacity: 0 }} }}\n"
                f"@media (prefers-reduced-motion: no-preference) {{ .{name} {{ opacity: 0; "
                f"animation: {name} {total:.2f}s linear infinite }} }}"
            )
        groups = [
            f'<g class="{spans[start, end]}">{element}</g>' for element, start, end in self.moving
        ]
        body = "\n".join([*self.still, *groups])
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
            f"<title>{escape(title)}</title>\n<style>{STYLE}" + "\n".join(rules) + f"</style>\n{body}\n</svg>\n"
        )


def place(signs: str, depth: int) -> tuple[float, float]:
    """Where the node of these signs stands: its share of the width, and its row."""
    number = int(signs.replace("+", "0").replace("-", "1") or "0", 2)
    x = TREE_LEFT + TREE_WIDTH * (number + 0.5) / 2 ** len(signs)
    return x, TOP + ROW * len(signs)


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(words)}</text>'


def draw_tree(depth: int) -> list[str]:
    edges, nodes = [], []
    for length in range(depth + 1):
        for letters in product("+-", repeat=length):
            signs = "".join(letters)
            x, y = place(signs, depth)
            radius = 13 if length == depth else 5
            nodes.append(f'<circle cx="{x:.1f}" cy="{y}" r="{radius}" class="node"/>')
            if signs:
                above_x, above_y = place(signs[:-1], depth)
                edges.append(
                    f'<line x1="{above_x:.1f}" y1="{above_y}" x2="{x:.1f}" y2="{y}" class="edge"/>'
                )
                side = -11 if signs[-1] == "+" else 11
                middle = ((above_x + x) / 2 + side, (above_y + y) / 2 + 2)
                nodes.append(text(*middle, signs[-1].replace("-", "−"), "soft small mid"))
    return edges + nodes


def walk(signs: str, depth: int, kind: str, number: str) -> str:
    """The way from the root to one leaf, and the leaf with what is written in it."""
    points = [place(signs[:length], depth) for length in range(depth + 1)]
    line = " ".join(f"{x:.1f},{y}" for x, y in points)
    x, y = points[-1]
    return (
        f'<polyline points="{line}" class="walk {kind}"/><circle cx="{x:.1f}" cy="{y}" r="13" class="{kind}"/>'
        + text(x, y + 5, number, "count")
    )


def signs_of(expression: str) -> str:
    return "".join(letter for letter in expression if letter in "+-")


def scene(film: Film, row: dict, accuracy: float, last: bool) -> None:
    """One moment of training: the attempts one after the other, then the answer."""
    problem = problem_of(row)
    depth, target = problem.level, problem.meta["target"]
    attempts, begin = parse_attempts(row["completion"]), film.clock
    answer = parse(row["completion"]).lenient_answer
    guesses = not attempts
    seconds = PAUSE + TRY * max(1, len(attempts)) + HOLD * (2 if last else 1)
    end = begin + seconds
    head = "before training" if row["step"] == 0 else f"after {row['step']} updates"
    film.show(text(LIST_LEFT, 62, head[0].upper() + head[1:], "head"), begin, end)
    solved = f"It solves {accuracy:.0%} of held-out puzzles.".replace("%", "\N{NO-BREAK SPACE}%")
    film.show(text(LIST_LEFT, 84, solved, "soft small"), begin, end)
    tried = [(signs_of(one.expression), one.totals[-1]) for one in attempts]
    if guesses:
        tried = [(signs_of(answer), None)]
        film.show(text(LIST_LEFT, TOP + 14, "No thinking: it guesses.", "soft"), begin + PAUSE, end)
    for number, (signs, total) in enumerate(tried):
        start = begin + PAUSE + TRY * number
        hit = signs == signs_of(problem.solution)
        kind = "right" if hit else "wrong"
        film.show(walk(signs, depth, kind, "?" if guesses else str(number + 1)), start, end)
        if not guesses:
            shown = f"{number + 1}  {attempts[number].expression} = {total}".replace("-", "−")
            film.show(
                text(LIST_LEFT, TOP + 14 + LINE * number, shown, "mono")
                + text(LIST_LEFT + 222, TOP + 14 + LINE * number, "✓" if hit else "✗", kind),
                start, end,
            )  # fmt: skip
    right = signs_of(answer) == signs_of(problem.solution)
    said = f"Answer: {answer}  {'✓' if right else '✗'}".replace("-", "−")
    line = TOP + 26 + LINE * (len(attempts) or 1)
    film.show(text(LIST_LEFT, line, said, "right" if right else "wrong"), end - HOLD * (2 if last else 1), end)
    film.clock = end


def build() -> str:
    """The film as SVG, from the samples and metrics of the stored run."""
    run = Run(RUN)
    rows = {row["step"]: row for row in run.samples if row["id"] == PUZZLE and row["advantage"] is None}
    accuracy = {row["step"]: row["pass_at_1"] for row in run.metrics if row["kind"] == "eval"}
    problem, film = problem_of(rows[0]), Film()
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    asked = f"Put + or − between {', '.join(map(str, numbers))} to make {target}".replace("-", "−")
    card = f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="12" class="card"/>'
    film.still = [card, text(20, 36, asked, "head"), text(20, 62, "Eight ways to choose the signs; one is right.", "soft")]
    film.still += draw_tree(problem.level)
    for step in STEPS:
        scene(film, rows[step], accuracy[step], step == STEPS[-1])
    return film.svg(
        f"{asked}. Before training the model guesses; after {STEPS[-1]} updates it tries the eight ways "
        "in order and finds the right one."
    )


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(build(), encoding="utf-8")
    print(f"{FILE}: {FILE.stat().st_size} bytes")
