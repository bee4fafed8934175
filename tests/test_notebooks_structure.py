"""Every notebook is complete, readable and fit for strict nbval: the rules a machine can check.

Strict nbval passes a notebook without any stored output, so it proves nothing by itself: these
rules make sure that there is something to compare and that a reader finds what was promised.
"""

import ast
import base64
import io
import re
from itertools import pairwise
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from r1lab.lab import check
from r1lab.lab.lesson import GUESSES
from tests.tools import student

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MAX_BYTES = 1_000_000


# Each rule yields pairs: whether the notebook breaks it, and the words for that.


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def markdown(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def promises_its_cost(nb):
    """Point 2: near the top stand prerequisites, CPU and GPU minutes, download and memory."""
    head = markdown(nb.cells[:3]).replace("\n", " ")
    near = r"(?:(?![.;]\s).){0,60}?"  # in the same sentence
    needed = {
        "prerequisites": r"prerequisites?\b",
        "CPU minutes": rf"\bCPU{near}\d{near}min",
        "GPU minutes": rf"\bGPU{near}(\d{near}min|not needed|none)",
        "download size": rf"download{near}(\d\s*[KMG]B|none|nothing)",
        "memory": rf"memory{near}\d\s*[MG]B",
    }
    for what, pattern in needed.items():
        yield not re.search(pattern, head, re.IGNORECASE), f"the first cells do not state: {what}"


def is_mostly_compared(nb):
    """Point 4: at most 15 % of the code cells ask nbval for an exception."""
    excused = [c for c in code(nb) if "nbval-" in " ".join(tags(c)) or re.search(r"#\s*NBVAL_", c.source)]
    few = len(excused) <= 0.15 * len(code(nb))
    yield not few, f"{len(excused)} of {len(code(nb))} code cells carry an nbval tag (at most 15 %)"


def is_stored_as_run(nb):
    """Point 5: counts 1..n apart from skipped cells, no errors, no widget state, under 1 MB."""
    expected = 0
    for i, cell in enumerate(code(nb)):
        if "skip-execution" in tags(cell):
            run = cell.execution_count is not None or cell.outputs
            yield run, f"code cell {i} is tagged skip-execution but stored as run"
            continue
        expected += 1
        count = cell.execution_count
        yield count != expected, f"code cell {i} has count {count}, expected {expected}"
        failed = any(output.output_type == "error" for output in cell.outputs)
        yield failed and "raises-exception" not in tags(cell), f"code cell {i} stores an error"
    yield "widgets" in nb.metadata, "metadata.widgets is stored"
    yield len(nbformat.writes(nb).encode()) >= MAX_BYTES, "the file is 1 MB or larger"


def has_short_code_cells(nb):
    """Point 6: code cells of 12 lines in the median and 40 at most, lines of 88 characters."""
    cells = [cell.source.splitlines() for cell in code(nb)]
    middle = median(map(len, cells)) if cells else 0
    yield middle > 12, f"the median code cell has {middle:g} lines (at most 12)"
    for i, lines in enumerate(cells):
        yield len(lines) > 40, f"code cell {i} has {len(lines)} lines (at most 40)"
        yield max(map(len, lines), default=0) > 88, f"code cell {i} has a line over 88 characters"


def talks_between_code(nb):
    """Point 7: no two code cells in a row, unless the second is an explicit check or folded away.

    The line that takes a guess belongs to the box before it.
    """
    for i, (before, cell) in enumerate(pairwise(cell for cell in nb.cells if not guessed(cell))):
        silent = is_check(cell) or cell.metadata.get("jupyter", {}).get("source_hidden")
        bare = before.cell_type == cell.cell_type == "code" and not silent
        yield bare, f"cells {i} and {i + 1} are code with no prose between them"


def guessed(cell):
    """The question to which a cell takes a guess, and nothing else; None if it does not."""
    asked = re.fullmatch(r'predict\(\s*"(.+)", None\s*\)', cell.source) if cell.cell_type == "code" else None
    return asked and asked[1]


def takes_guesses_where_it_asks(nb):
    """A guess is taken right after a *Predict first*, for a question of that lesson that has an answer."""
    for before, cell in pairwise(nb.cells):
        question = guessed(cell)
        lost = question and "**Predict first" not in markdown([before])
        yield lost, f"a guess without a question: {question}"
        yield question and question not in GUESSES, f"guesses.toml has no {question!r}"


def is_check(cell):
    """Only assertions, calls of `check` and prints, and at least one that is not a print."""
    kinds = re.compile(r"assert\b|(check|print)\b(?=[.\w]*\(.*\)$)|", re.DOTALL)
    found = {kinds.match(ast.unparse(node))[0] for node in parsed(cell).body}
    return "" not in found and bool({"assert", "check"} & found)


def has_nested_headings(nb):
    """Point 9: one title, first; then 5 to 9 sections, and no heading level skipped."""
    text = re.sub(r"^(```|~~~).*?^\1", "", markdown(nb.cells), flags=re.DOTALL | re.MULTILINE)
    levels = [len(marks) for marks in re.findall(r"^(#+) \S", text, flags=re.MULTILINE)]
    titled = nb.cells[0].source.startswith("# ") and levels.count(1) == 1
    yield not titled, "there is not exactly one title (#), at the very start"
    yield not 5 <= levels.count(2) <= 9, f"there are {levels.count(2)} sections (##), not 5 to 9"
    for before, level in pairwise(levels):
        yield level > before + 1, f"a heading of level {level} follows one of level {before}"


def describes_its_figures(nb):
    """Point 14: each figure has alternative text, a caption line, and an opaque PNG that decodes.

    Labels and title are demanded by `r1lab.lab.show` itself, which is what writes the metadata.
    """
    for i, cell in enumerate(code(nb)):
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        printed = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        captions = re.findall(r"^Figure: \S", printed, flags=re.MULTILINE)
        bare = len(captions) < len(pictures)
        yield bare, f"code cell {i} has a figure without a printed caption: use r1lab.lab.show"
        for output in pictures:
            bare = len(output.metadata.get("image/png", {}).get("alt", "")) < 20
            yield bare, f"code cell {i} has a figure without alternative text: use r1lab.lab.show"
            yield from looks_right(f"the picture of code cell {i}", output.data["image/png"])
    for i, cell in enumerate(nb.cells):
        bare = re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=[\"']\s*[^\"'\s])", markdown([cell]))
        yield bare, f"cell {i} has a picture without alternative text"


def looks_right(what, png):
    try:
        image = Image.open(io.BytesIO(base64.b64decode(png, validate=False))).convert("RGBA")
    except (OSError, ValueError, SyntaxError):
        yield True, f"{what} does not decode"
        return
    yield min(image.size) < 200, f"{what} is only {image.size[0]} by {image.size[1]} pixels"
    yield image.getextrema()[3][0] < 255, f"{what} is transparent: black text vanishes on a dark page"


VERBS = set(
    """analyse apply ask break build catch change check choose compare compute count decide define derive
    describe design detect diagnose distinguish draw estimate explain find fix grade identify judge
    list locate measure name patch predict prove read recognise reproduce run score separate
    show sketch spot state tell test train use verify watch weigh write""".split()
)
SOURCES_OF_CHANCE = {  # calls that draw at random -> the argument that must be written out
    **dict.fromkeys("rand randn randint randperm multinomial normal bernoulli".split(), "generator"),
    **dict.fromkeys("SamplingParams evaluate measure_skills GRPOConfig ask paired_bootstrap".split(), "seed"),
}
EXERCISES_IN = {"00_start_here": 1, "03b_insight_or_habit": 2}  # fewer than the three of a lesson


def items(text):
    return re.findall(r"^(?:\d+\.|[-*]) +(\S.*)", text, flags=re.MULTILINE)


def words(text):
    """Words of prose: no code, formulas, tables, pictures, tags."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|```.*?```|\$\$.*?\$\$|^\|[^\n]*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"</?[a-z][^>\n]*>", " ", re.sub(r"`[^`\n]*`|\$[^$\n]*\$", " x ", text))
    return re.findall(r"[^\W\d_][\w'’-]*", text)


def sections(nb):
    """(heading, cells) of each `## ` section."""
    found = []
    for cell in nb.cells:
        heading = re.match(r"## (.*)", markdown([cell]))
        if heading:
            found.append((heading[1], []))
        if found:
            found[-1][1].append(cell)
    return found


def parsed(cell):
    try:
        return ast.parse(cell.source)
    except SyntaxError:  # a magic command
        return ast.parse("")


def promises_what_one_learns(nb):
    """Point 1: a title, a sentence that promises, and 3 to 5 objectives that begin with verbs."""
    head = nb.cells[0].source
    opening = re.split(r"\n(?:\d+\.|[-*]) ", head)[0].partition("\n")[2]
    promise = re.search(r"(?:\S+ ){6}[^.]*\.", opening)
    yield not promise, "the first cell promises nothing in a sentence between title and objectives"
    objectives = items(head)
    yield not 3 <= len(objectives) <= 5, f"the first cell lists {len(objectives)} objectives, not 3 to 5"
    for objective in objectives:
        verb = words(objective) and words(objective)[0].lower() in VERBS
        yield not verb, f"the objective {objective[:30]!r} does not begin with a verb of VERBS"


def has_enough_prose(nb):
    """Point 8: 4 to 12 words of prose per code line, and at most 150 words in a cell."""
    lines = [line for cell in code(nb) for line in cell.source.splitlines() if line.strip()]
    ratio = len(words(markdown(nb.cells))) / max(1, len(lines))
    yield not 4 <= ratio <= 12, f"{ratio:.1f} words of prose per code line, not 4 to 12"
    for i, cell in enumerate(nb.cells):
        count = len(words(markdown([cell])))
        yield count > 150, f"cell {i} has {count} words (at most 150)"


def asserts_numbers(nb):
    """Point 11: five assertions or more with a message, on more than shapes and types."""
    asserted = [
        node for cell in code(nb) for node in ast.walk(parsed(cell))
        if isinstance(node, ast.Assert) and node.msg is not None
        and not re.search(r"\.shape\b|\.dtype\b|isinstance\(", ast.unparse(node.test))
    ]  # fmt: skip
    yield len(asserted) < 5, f"{len(asserted)} assertions on numbers with a message (at least 5)"


def shows_its_seeds(nb):
    """Point 12: what draws at random has its seed or generator in the call; no global seeds."""
    for i, cell in enumerate(code(nb)):
        for node in (node for node in ast.walk(parsed(cell)) if isinstance(node, ast.Call)):
            name = ast.unparse(node.func)
            last, given = name.split(".")[-1], {word.arg for word in node.keywords}
            needed = SOURCES_OF_CHANCE.get(last)
            if re.match(r"(torch\.manual_seed|random\.seed)$|np\.random\.seed", name):
                yield True, f"code cell {i} seeds globally ({name}): pass a generator instead"
            elif re.match(r"(np\.random|random)\.[a-z]", name) and last != "default_rng":
                yield True, f"code cell {i} draws from the global generator: {name}"
            yield needed and not {needed, None} & given, f"code cell {i} calls {last} without {needed}="
            seeded = last not in ("Random", "default_rng") or node.args
            yield not seeded, f"code cell {i} calls {last} without a seed"


def shows_before_it_moves(nb):
    """Point 16: an interactive cell comes after a figure of its section that says it without it.

    Its labels and its Reset are demanded of the widgets themselves, by their own tests.
    """
    for heading, cells in sections(nb):
        figure = False
        for cell in cells:
            moves = "interactive" in tags(cell)
            yield moves and not figure, f"an interactive cell of {heading!r} comes before any figure"
            runs = "skip-execution" not in tags(cell)
            yield moves and runs, f"an interactive cell of {heading!r} is not tagged skip-execution"
            figure |= any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def has_exercises(nb):
    """Point 17: three exercises, each with its effort, a hint, a folded solution and a check."""
    called = {name for cell in code(nb) for name in re.findall(r"\bcheck\.(\w+)\(", cell.source)}
    for name in sorted(called - {"names", *check.names()}):
        yield True, f"there is no check.{name}"
    found = 0
    for i, cell in enumerate(nb.cells):
        heading = re.search(r"^#+ (Exercise \d+)", markdown([cell]), flags=re.MULTILINE)
        if not heading:
            continue
        found += 1
        effort = r"Difficulty [1-3] of 3 · importance [1-3] of 3 · \d+ minutes"
        following = [c for c in nb.cells[i + 1 : i + 4] if c.cell_type == "code"]
        solution, test = [*following, new_code_cell(), new_code_cell()][:2]
        parts = {
            "difficulty, importance and minutes": re.search(effort, cell.source),
            "a hint": "<summary>Hint" in cell.source,
            "a solution in the next code cell": re.search(
                f"{student.BEGIN}.*{student.END}", solution.source, flags=re.DOTALL),
            "a folded solution": solution.metadata.get("jupyter", {}).get("source_hidden"),
            "a check after it": is_check(test),
        }
        for part, has in parts.items():
            yield not has, f"{heading[1]} lacks {part}"
    least = EXERCISES_IN.get(nb.metadata.get("name"), 3)
    yield found < least, f"{found} exercises (at least {least})"


def says_what_goes_wrong(nb):
    """Point 18: a section with three symptoms, each made by one changed parameter, and its code."""
    found = [cells for heading, cells in sections(nb) if "What could go wrong" in heading]
    yield not found, "there is no section 'What could go wrong'"
    for cells in found[:1]:
        table = [markdown([cell]) for cell in cells if "symptom" in markdown([cell])]
        rows = re.findall(r"^\|.*\|.*\|$", "\n".join(table), flags=re.MULTILINE)
        whole = len(rows) >= 5 and "changed" in rows[0]  # with its head and a rule
        yield not whole, "no table of at least 3 rows: what is changed, the symptom, the cause"
        yield all(c.cell_type != "code" for c in cells), "no code that reproduces a symptom"


def closes_the_circle(nb, folder=NOTEBOOKS[0].parent):
    """Point 20: a summary as long as the objectives, a glossary, links to both neighbours."""
    heading, cells = (sections(nb) or [("", [])])[-1]
    summary, _, glossary = markdown(cells).partition("### Glossary")
    yield "Summary" not in heading, "the last section is not a summary"
    points, objectives = len(items(summary)), len(items(nb.cells[0].source))
    yield points != objectives, f"{points} points in the summary for {objectives} objectives"
    terms = re.findall(r"^\*\*|\s\*\*", glossary)
    yield len(terms) < 3, "the summary has no glossary of three terms or more"
    links = re.findall(r"\]\((?!https?:|#|attachment:)([^)#\s]+)", markdown(nb.cells))
    for link in links:
        yield not (folder / link).exists(), f"a link leads nowhere: {link}"
    own = re.match(r"# (\d+)", nb.cells[0].source)
    for number in (int(own[1]) - 1, int(own[1]) + 1) if own else ():
        for neighbour in folder.glob(f"{number:02d}_*.ipynb"):
            yield neighbour.name not in links, f"no link to {neighbour.name}"


def faults(rule, nb):
    return [words for broken, words in rule(nb) if broken]


# The rules themselves, each shown notebooks that it must refuse.


def png(size=(300, 200), alpha=255):
    buffer = io.BytesIO()
    Image.new("RGBA", size, (255, 255, 255, alpha)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def figure(data, alt="Accuracy over steps, rising from 22 to 64 per cent."):
    return new_output("display_data", {"image/png": data}, metadata={"image/png": {"alt": alt}})


def caption():
    return new_output("stream", name="stdout", text="Figure: accuracy over steps\n")


def good():
    """A small notebook that keeps every rule."""
    cells = [new_markdown_cell(
        "# A lesson\nIn this lesson a small policy learns to count, and you see why.\n\n"
        "1. **compute** an advantage;\n2. **explain** it;\n3. **break** it.\n\n"
        "Prerequisites: notebook 02. CPU: 3 minutes. GPU: not needed. Download: none. Memory: 1 GB."
    )]  # fmt: skip
    for i in range(6):
        cells.append(new_markdown_cell(f"## Section {i}\nWhat comes next, and why. {'Look. ' * 9}"))
        source = f"x = {i}\nassert x == {i}, 'the number of the section'\nprint(x)"
        cells.append(new_code_cell(source, execution_count=i + 1))
    cells[2].outputs = [figure(png()), caption()]
    slider = new_code_cell("slider()", metadata={"tags": ["interactive", "skip-execution"]})
    cells[3:3] = [new_markdown_cell("Move the slider."), slider]
    cells[-2].source = (
        "## What could go wrong\n\n| changed | symptom | cause |\n|---|---|---|\n"
        "| `x=1` | a | b |\n| `x=2` | a | b |\n| `x=3` | a | b |\n\nEach is one parameter."
    )
    for i in (1, 2, 3):
        cells += exercise(i)
    for number, cell in enumerate((c for c in cells if c is not slider and c.cell_type == "code"), 1):
        cell.execution_count = number
    end = "## Summary\n1. One.\n2. Two.\n3. Three.\n\n### Glossary\n**A**: a. **B**: b. **C**: c.\n"
    return new_notebook(cells=[*cells, new_markdown_cell(end)])


def exercise(number):
    head = (
        f"### Exercise {number}: votes\n\nDifficulty 1 of 3 · importance 2 of 3 · 5 minutes\n\n"
        "<details><summary>Hint</summary>\n\nCount.\n</details>"
    )
    source = f"def vote(a):\n    {student.BEGIN}\n    return max(a)\n    {student.END}"
    folded = {"jupyter": {"source_hidden": True}}
    return [
        new_markdown_cell(head), new_code_cell(source, metadata=folded),
        new_code_cell("check.majority_vote(vote);"),
    ]  # fmt: skip


def set_in(index, **values):
    return lambda nb: nb.cells[index].update(values)


def tag(*indices):
    return lambda nb: [nb.cells[i].metadata.update(tags=["nbval-ignore-output"]) for i in indices]


def cut(start, stop):
    return lambda nb: nb.cells.__delitem__(slice(start, stop))


def outputs(*stored):
    return set_in(2, outputs=list(stored))


def swap(index, old, new=""):
    """Exchange words of one cell, which must be there."""

    def change(nb):
        assert old in nb.cells[index].source
        nb.cells[index].source = nb.cells[index].source.replace(old, new)

    return change


def all_code(source):
    return lambda nb: [cell.update(source=source) for cell in code(nb)]


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
LONG = "\n".join(["x = 0"] * 41)
RULES = {  # each with the changes of a good notebook that it must refuse, and words of what it says
    promises_what_one_learns: [
        (swap(0, "In this lesson a small policy learns to count, and "), "promises nothing"),
        (swap(0, "2. **explain** it;\n3. **break** it."), "1 objectives"),
        (swap(0, "**compute** an advantage", "advantages"), "a verb")],
    promises_its_cost: [
        (swap(0, "Prerequisites: notebook 02."), "prerequisites"), (swap(0, "Memory: 1 GB."), "memory"),
        (swap(0, "3 minutes"), "CPU minutes"), (swap(0, "GPU: not needed."), "GPU minutes"),
        (swap(0, "Download: none."), "download size"), (swap(0, "CPU: 3 minutes."), "CPU minutes")],
    is_mostly_compared: [(tag(2, 6), "2 of 13"), (all_code("# NBVAL_SKIP"), "13 of 13")],
    is_stored_as_run: [
        (set_in(6, execution_count=7), "count 7"), (set_in(6, execution_count=None), "count None"),
        (set_in(6, outputs=[ERROR]), "error"), (set_in(4, execution_count=9), "skip-execution"),
        (set_in(4, outputs=[caption()]), "skip-execution"), (set_in(3, source="x" * MAX_BYTES), "1 MB"),
        (lambda nb: nb.metadata.update(widgets={}), "widgets")],
    has_short_code_cells: [
        (set_in(2, source=LONG), "41 lines"), (set_in(2, source="x = " + "1" * 90), "88"),
        (all_code(LONG[:77]), "median")],
    talks_between_code: [
        (cut(3, 4), "no prose"), (set_in(-2, source="x = 2\nassert x"), "no prose"),
        (set_in(-2, source="print(x)"), "no prose"), (set_in(-2, source="%matplotlib inline"), "no prose")],
    takes_guesses_where_it_asks: [
        (set_in(2, source='predict("14 what the coin does", None)'), "without a question: 14"),
        (lambda nb: nb.cells.insert(1, new_code_cell('predict("no", None)')), "has no 'no'")],
    has_enough_prose: [
        (set_in(3, source="word " * 151), "151 words"),
        (set_in(2, source="x = 0\n" * 40), "words of prose per code line"),
        (set_in(3, source="word\n" * 999), "words of prose per code line")],
    has_nested_headings: [
        (set_in(3, source="# A second title"), "one title"), (set_in(0, source="No mark"), "one title"),
        (set_in(3, source="#### Too deep"), "level 4 follows"), (cut(3, 13), "3 sections"),
        (set_in(3, source="## A\n## B\n## C\n## D"), "11 sections"),
        (set_in(3, source="```\n### no heading\n```\n## S\n#### d"), "level 4 follows one of level 2")],
    asserts_numbers: [
        (all_code("assert x == 1"), "0 assertions"),
        (all_code("assert x.shape == (1,), 'only the shape'"), "0 assertions")],
    shows_its_seeds: [
        (set_in(2, source="x = torch.rand(3)"), "rand without generator="),
        (set_in(2, source="evaluate(model, tokenizer, problems, k=4)"), "seed="),
        (set_in(2, source="torch.manual_seed(0)"), "globally"),
        (set_in(2, source="rng = random.Random()"), "without a seed"),
        (set_in(2, source="x = np.random.rand(3)"), "global generator"),
        (set_in(2, source="x = random.choice([1, 2])"), "global generator")],
    describes_its_figures: [
        (outputs(figure(png(), alt=""), caption()), "alternative text"), (outputs(figure(png())), "caption"),
        (outputs(figure("AAAA"), caption()), "does not decode"), (set_in(3, source="![](map.png)"), "cell 3"),
        (outputs(figure(png((30, 20))), caption()), "30 by 20"),
        (outputs(figure(png(alpha=0)), caption()), "transparent"),
        (set_in(3, source='<img src="map.png">'), "cell 3")],
    shows_before_it_moves: [
        (outputs(), "before any figure"), (set_in(3, source="## A new section"), "before any figure"),
        (lambda nb: nb.cells[4].metadata.update(tags=["interactive"]), "not tagged skip-execution")],
    has_exercises: [
        (set_in(17, source="check.no_such_check(vote);"), "no check.no_such_check"),
        (set_in(17, source="vote([1])"), "a check after it"), (swap(15, "Hint", "Help"), "a hint"),
        (swap(15, "importance 2 of 3 · "), "difficulty, importance and minutes"),
        (swap(16, student.BEGIN), "a solution in the next"), (cut(-4, -1), "2 exercises"),
        (lambda nb: nb.cells[16].metadata.clear(), "a folded solution")],
    says_what_goes_wrong: [
        (swap(13, "What could go wrong", "Trouble"), "no section"),
        (swap(13, "| `x=3` | a | b |\n"), "at least 3 rows"),
        (swap(13, "changed", "cause"), "what is changed"),
        (lambda nb: nb.cells.insert(14, new_markdown_cell("## Next")), "no code")],
    closes_the_circle: [
        (swap(-1, "## Summary", "## The end"), "not a summary"),
        (swap(-1, "3. Three.\n"), "2 points in the summary for 3 objectives"),
        (swap(-1, "### Glossary"), "glossary"),
        (set_in(3, source="[there](nowhere.ipynb)"), "leads nowhere: nowhere"),
        (swap(0, "# A lesson", "# 2 · A lesson"), "no link to 03_r1_zero.ipynb")],
}  # fmt: skip
BAD = [(rule, *broken) for rule, changes in RULES.items() for broken in changes]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    nb = nbformat.read(path, as_version=4)
    nb.metadata.name = path.stem
    found = faults(rule, nb)
    assert not found, f"{path.name}: " + "; ".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule):
    assert faults(rule, good()) == []


@pytest.mark.parametrize(("rule", "change", "words"), BAD)
def test_rule_refuses_a_bad_notebook(rule, change, words):
    nb = good()
    change(nb)
    assert words in "; ".join(faults(rule, nb))


def test_every_answer_that_is_stored_is_asked_for_once():
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells]
    assert sorted(filter(None, map(guessed, cells))) == sorted(GUESSES)


@pytest.mark.parametrize("text", ["![A map of the rooms](m.png)", '<img src="m.png" alt="A map">'])
def test_a_picture_with_alternative_text_is_fine(text):
    nb = good()
    nb.cells[3].source = text
    assert faults(describes_its_figures, nb) == []


# Lessons whose prose follows style.md: there, a paragraph holds at most one colon, semicolon or
# bracket on average. A lesson is added here when it is rewritten.
REWRITTEN = ("00_start_here", "01_grpo_math", "01b_variants_and_kl", "02_reward_design", "03_r1_zero")
REWRITTEN += ("03b_insight_or_habit",)
REWRITTEN += ("04_cold_start", "05_reasoning_rl", "06_rejection_sampling")
UNPLAIN = r"\b(mend\w*|anew|hitherto|seldom|begun|stands in|what must hold)\b"
REWRITTEN += ("07_rl_for_all_scenarios", "08_distillation", "09_evaluation",
              "10_what_did_not_work", "11_fused_logprobs", "12_scaling_out", "13_a_real_model",
              "14_capstone")


def paragraphs(text):
    """Paragraphs and list items of prose: no code, formulas, tables, pictures, tags or headings."""
    marks = r"!\[[^\]]*\]\([^)]*\)|```.*?```|\$\$.*?\$\$|^\|[^\n]*$|^#+ [^\n]*$|</?[a-z][^>\n]*>"
    text = re.sub(marks, "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]*`|\$[^$]*\$", " x ", text))
    return [part for part in re.split(r"\n\s*\n|\n(?=(?:\d+\.|[-*]) )", text) if len(words(part)) > 2]


def pauses(parts):
    """Colons, semicolons and brackets of a paragraph, on average."""
    return sum(len(re.findall(r"[:;(]", part)) for part in parts) / max(1, len(parts))


@pytest.mark.parametrize("name", REWRITTEN)
def test_prose_flows(name):
    text = markdown(nbformat.read(NOTEBOOKS[0].with_name(f"{name}.ipynb"), as_version=4).cells)
    assert pauses(paragraphs(text)) <= 1
    assert re.findall(UNPLAIN, text.lower()) == []


def test_pauses_are_counted_in_prose_only():
    text = "# A: title\n\nOne: two (three); four five.\n\n$$a: (b)$$\n\n- six `a:b` seven [eight](n.md)\n- nine: $f(x)$ ten\n"
    assert [part.strip()[:3] for part in paragraphs(text)] == ["One", "- s", "- n"]
    assert pauses(paragraphs(text)) == 4 / 3


# Lessons whose numbers stand in tables (`r1lab.lab.table`): nothing printed has over six lines.
TABULATED = ("00_start_here", "01_grpo_math", "02_reward_design", "03_r1_zero", "04_cold_start", "05_reasoning_rl")
TABULATED += ("06_rejection_sampling", "07_rl_for_all_scenarios", "08_distillation", "09_evaluation")
TABULATED += ("10_what_did_not_work", "11_fused_logprobs", "12_scaling_out", "13_a_real_model", "14_capstone", "01b_variants_and_kl", "03b_insight_or_habit")


def long_prints(nb):
    printed = [o.text for cell in code(nb) for o in cell.outputs if o.output_type == "stream"]
    return [text for text in printed if len(text.splitlines()) > 6]


@pytest.mark.parametrize("name", TABULATED)
def test_tables_are_shown_and_not_printed(name):
    nb = nbformat.read(NOTEBOOKS[0].with_name(f"{name}.ipynb"), as_version=4)
    assert long_prints(nb) == []


def test_a_printed_table_is_found():
    nb = good()
    nb.cells[2].outputs = [new_output("stream", name="stdout", text="row\n" * 6)]
    assert long_prints(nb) == []
    nb.cells[4].outputs = [new_output("stream", name="stdout", text="row\n" * 7)]
    assert long_prints(nb) == ["row\n" * 7]
