"""Draw the diagrams of the lessons as SVG files, in light and dark: `python -m tests.tools.diagrams`.

Each drawing is a function that returns the parts of one picture. `DRAWINGS` holds their file names, alt
texts and sizes.
"""

from functools import partial
from html import escape
from pathlib import Path

FOLDER = Path("notebooks/images")
STYLE = """
svg { font-family: system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; --ink: #1f2328; --pale: #d5d9df;
  --soft: #59636e; --lit: #0072b2; --paper: #ffffff; --tint: #e8f2fa; --right: #0a7d5a; --wrong: #b4470b; --miss: #9aa3ad; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --pale: #3d444d; --soft: #9198a1; --lit: #6cb6ff;
  --paper: #0d1117; --tint: #16283a; --right: #3fcf9f; --wrong: #ff9b62; --miss: #6e7681; } }
text { fill: var(--ink); font-size: 15px } .soft { fill: var(--soft); font-size: 13px } .mid { text-anchor: middle }
.head { font-weight: 600 } .card { fill: var(--paper); stroke: var(--pale) } .lit { fill: var(--lit); font-weight: 600 }
.box { fill: var(--paper); stroke: var(--soft); stroke-width: 1.5 } .box.on { fill: var(--tint); stroke: var(--lit); stroke-width: 2.5 }
.line { stroke: var(--soft); stroke-width: 1.5; fill: none } .line.on { stroke: var(--lit); stroke-width: 2.5 }
.tip { fill: var(--soft) } .tip.on { fill: var(--lit) } .hit { fill: var(--right) } .bad { fill: var(--wrong) } .miss { fill: var(--miss) }
rect.up, text.up { fill: var(--right) } rect.down, text.down { fill: var(--wrong) } .mono { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 14px }
"""


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" class="{kind}"/>'


def arrow(points: list[tuple[float, float]], on: bool = False) -> str:
    """A line through the points; its tip points along the last, horizontal or vertical, stretch."""
    kind = " on" if on else ""
    (before_x, before_y), (x, y) = points[-2:]
    side_x, side_y = (x > before_x) - (x < before_x), (y > before_y) - (y < before_y)
    back_x, back_y = x - 9 * side_x, y - 9 * side_y
    tip = f"{x:g},{y:g} {back_x + 5 * side_y:g},{back_y + 5 * side_x:g} {back_x - 5 * side_y:g},{back_y - 5 * side_x:g}"
    line = " ".join(f"{a:g},{b:g}" for a, b in [*points[:-1], (back_x, back_y)])
    return f'<polyline points="{line}" class="line{kind}"/><polygon points="{tip}" class="tip{kind}"/>'


STAGES = ("Base", "R1-Zero", "Dev1", "Dev2", "Dev3", "R1", "Student")
WAYS = ("RL", "cold start", "reasoning RL", "rejection", "RL for all", "distillation")
RL, EVERY = (1, 3, 5), (1, 2, 3, 4, 5, 6)
LIT = {  # of the stages, by lesson: those that it is about
    "00": EVERY, "01": RL, "02": RL, "03": (1,), "04": (2,), "05": (3,), "06": (4,), "07": (5,), "08": (6,),
    "09": EVERY, "10": (1,), "11": RL, "12": RL, "13": (1, 2),
    "14": (1,),
}  # fmt: skip


def pipeline(lesson: str) -> list[str]:
    """From the base to R1 and its student, with what the lesson is about in colour."""
    lit, width, gap, parts = LIT[lesson], 78, 47, []
    for place, name in enumerate(STAGES):
        x, on = 10 + place * (width + gap), place in lit
        parts.append(box(x, 34, width, 36, "box on" if on else "box"))
        parts.append(text(x + width / 2, 57, name, "mid lit" if on else "mid"))
        if place:
            parts.append(arrow([(x - gap + 3, 52), (x - 3, 52)], on))
            parts.append(text(x - gap / 2, 20 if place % 2 else 92, WAYS[place - 1], "mid lit soft" if on else "mid soft"))
    return parts


HITS = ((0, 0, 0, 1), (0, 1), (0, 0), (0,), (0, 0, 0), (0,))  # attempts of six answers; two end in a hit
ABOVE, BELOW = 1.41, -0.71  # their advantages: reward 1 or 0, less the mean, divided by the std


def strips(x: float, y: float, advantages: bool) -> list[str]:
    """A group: a row for each answer, a square for each attempt; then its advantage as a bar."""
    parts = []
    for number, attempts in enumerate(HITS):
        advantage = ABOVE if attempts[-1] else BELOW
        line = y + 17 * number
        for place, hit in enumerate(attempts):
            kind = "hit" if hit else "miss"
            parts.append(f'<rect x="{x + 15 * place}" y="{line}" width="12" height="12" rx="2" class="{kind}"/>')
        if advantages:
            start, size = x + 120, 26 * abs(advantage)
            left = start if advantage > 0 else start - size
            kind = "up" if advantage > 0 else "down"
            parts.append(f'<rect x="{left:g}" y="{line}" width="{size:g}" height="12" class="{kind}"/>')
    return parts


def loop() -> list[str]:
    """One rollout of GRPO: five things happen, in a circle."""
    parts = [
        box(16, 70, 164, 120), text(98, 58, "1 sample", "mid head"),
        text(98, 108, "policy", "mid"), text(98, 134, "make 7 from 9,3,1", "mid mono"),
        text(98, 162, "a group of answers", "mid soft"),
        arrow([(184, 130), (212, 130)]),
        box(216, 46, 150, 168), text(291, 34, "2 reward", "mid head"), *strips(258, 66, advantages=False),
        text(291, 196, "a rule grades each", "mid soft"),
        arrow([(370, 130), (398, 130)]),
        box(402, 46, 226, 168), text(515, 34, "3 advantage", "mid head"), *strips(430, 66, advantages=True),
        text(515, 196, "better or worse than its group", "mid soft"),
        arrow([(632, 130), (660, 130)]),
        box(664, 70, 180, 120), text(754, 58, "4 loss, 5 gradient", "mid head"),
        text(754, 108, "good ones: more likely", "mid up soft"), text(754, 134, "bad ones: less likely", "mid down soft"),
        text(754, 162, "in small steps, clipped", "mid soft"),
        arrow([(754, 194), (754, 246), (98, 246), (98, 194)], on=True),
        text(426, 238, "the policy with new weights samples again", "mid lit soft"),
    ]  # fmt: skip
    return parts


def machines() -> list[str]:
    """Who holds which weights, and what they send each other."""
    parts = [
        box(30, 60, 200, 90, "box on"), text(130, 96, "Sampler", "mid head"), text(130, 122, "writes answers", "mid soft"),
        box(330, 60, 200, 90, "box on"), text(430, 96, "Trainer", "mid head"), text(430, 122, "the policy that learns", "mid soft"),
        box(630, 60, 200, 90), text(730, 96, "Reference", "mid head"), text(730, 122, "a frozen copy", "mid soft"),
        box(130, 220, 300, 70), text(280, 250, "Rewards", "mid head"), text(280, 274, "rules, tests, reward models", "mid soft"),
        arrow([(234, 88), (326, 88)]), text(280, 78, "log-probs", "mid soft"),
        arrow([(326, 126), (234, 126)]), text(280, 146, "new weights", "mid soft"),
        arrow([(626, 88), (534, 88)]), text(580, 78, "log-probs", "mid soft"),
        arrow([(534, 126), (626, 126)]), text(580, 146, "refresh", "mid soft"),
        arrow([(160, 154), (160, 216)]), text(152, 190, "answers", "soft end"),
        arrow([(400, 216), (400, 154)]), text(410, 190, "advantages", "soft"),
    ]  # fmt: skip
    return parts


def drift() -> list[str]:
    """What a reward model pays for, and what people want, on the way of training."""
    parts = [
        '<polyline points="70,30 70,250 800,250" class="line"/>',
        text(435, 280, "training steps on the reward model", "mid soft"), text(20, 24, "score", "soft"),
        '<path d="M70,220 C200,120 330,70 800,45" class="line on"/>', text(640, 34, "what the model pays", "lit"), text(800, 280, "a sketch", "soft end"),
        '<path d="M70,220 C190,130 300,105 380,120 S620,210 800,232" class="line goal"/>',
        text(640, 184, "what people want", "bad head"),
        '<line x1="330" y1="40" x2="330" y2="250" class="line dash"/>',
        text(322, 52, "stop here", "soft end"),
    ]  # fmt: skip
    return parts


def tiles() -> list[str]:
    """How the fused kernel reads the head's weights: tile after tile, and no logits are kept."""
    parts = [text(120, 34, "hidden states", "mid head"), text(430, 34, "weights of the head", "mid head"),
             text(760, 34, "kept of each row", "mid head")]  # fmt: skip
    for row in range(4):
        on = "box on" if row == 1 else "box"
        parts.append(f'<rect x="60" y="{60 + 42 * row}" width="120" height="34" rx="4" class="{on}"/>')
        parts.append(f'<rect x="690" y="{60 + 42 * row}" width="140" height="34" rx="4" class="{on}"/>')
    for column in range(6):
        on = "box on" if column == 2 else "box"
        parts.append(f'<rect x="{290 + 48 * column}" y="60" width="40" height="160" rx="4" class="{on}"/>')
    parts += [
        text(760, 124, "max, sum, chosen", "mid lit soft"), text(430, 246, "the vocabulary, tile by tile", "mid soft"),
        text(120, 246, "rows of tokens", "mid soft"), text(760, 246, "three numbers, no logits", "mid soft"),
        arrow([(184, 119), (282, 119)], on=True), arrow([(584, 119), (686, 119)], on=True),
        text(233, 108, "times", "mid lit soft"), text(635, 108, "folds into", "mid lit soft"),
    ]  # fmt: skip
    return parts


def shards() -> list[str]:
    """One process holds everything, or each of four holds a quarter."""
    kinds, parts = ("weights", "gradients", "Adam", "Adam"), []
    for left, title, processes in ((30, "each process holds everything", 2), (450, "each holds a share", 4)):
        parts.append(text(left + 190, 36, title, "mid head"))
        width = 380 / processes
        for process in range(processes):
            x = left + width * process
            parts.append(box(x + 4, 56, width - 8, 150))
            for row, kind in enumerate(kinds):
                full = width - 24
                share = full if processes == 2 else full / 4
                at = x + 12 + (0 if processes == 2 else share * process)
                parts.append(f'<rect x="{x + 12:g}" y="{68 + 34 * row}" width="{full:g}" height="24" rx="3" class="card"/>')
                parts.append(f'<rect x="{at:g}" y="{68 + 34 * row}" width="{share:g}" height="24" rx="3" class="box on"/>')
                if processes == 2:
                    parts.append(text(x + 12 + full / 2, 85 + 34 * row, kind, "mid soft"))
            parts.append(text(x + width / 2, 226, f"process {process}", "mid soft"))
    return parts


DRAWINGS = {
    f"pipeline-{lesson}": (
        860, 104, "The chain of stages: Base, R1-Zero, Dev1, Dev2, Dev3, R1, Student. In colour: "
        + ", ".join(STAGES[place] for place in lit) + ".", partial(pipeline, lesson),
    )
    for lesson, lit in LIT.items()
} | {
    "loop": (860, 266, "One rollout of GRPO in a circle. The policy samples a group of answers. A rule rewards each. Its "
             "advantage says how much better it is than its group. The loss makes good answers likely, and the policy "
             "with new weights samples again.", loop),
    "machines": (860, 310, "The sampler sends answers to the rewards and their log-probs to the trainer. The trainer gets "
                 "advantages from the rewards and log-probs from a frozen reference, and sends its new weights to the "
                 "sampler.", machines),
    "drift": (860, 300, "Two curves over training steps. What the reward model pays rises all the time. What people want "
              "rises at first, then falls.", drift),
    "tiles": (860, 266, "The fused kernel multiplies a block of hidden states with one tile of the head's weights after "
              "another. Of each row it keeps the maximum, the sum and the chosen score, and no logits.", tiles),
    "shards": (860, 246, "Left: two processes, each with all weights, gradients and Adam's numbers. Right: four processes, "
               "each with a quarter of them.", shards),
}  # fmt: skip
MORE = """.end { text-anchor: end } .goal { stroke: var(--wrong); stroke-width: 2.5 } .dash { stroke-dasharray: 5 5 }
"""


def draw(name: str) -> str:
    """The SVG of this name."""
    width, height, alt, parts = DRAWINGS[name]
    card = f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="12" class="card"/>'
    body = "\n".join([card, *parts()])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{escape(alt)}</title>\n<style>{STYLE}{MORE}</style>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DRAWINGS:
        (FOLDER / f"{name}.svg").write_text(draw(name), encoding="utf-8")
    print(f"{len(DRAWINGS)} drawings in {FOLDER}")
