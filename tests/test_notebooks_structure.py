"""Every notebook is complete, readable and fit for strict nbval: the rules a machine can check.

Strict nbval passes a notebook without any stored output, so it proves nothing by itself: these
rules make sure that there is something to compare and that a reader finds what was promised.
"""

import ast
import base64
import copy
import io
import re
from pathlib import Path
from statistics import median

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from r1lab.lab import check
from tests.tools import student

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MAX_BYTES = 1_000_000


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def promises_its_cost(nb):
    """Point 2: near the top stand prerequisites, CPU and GPU minutes, download and memory."""
    head = " ".join(c.source for c in nb.cells[:3] if c.cell_type == "markdown").replace("\n", " ")
    near = r"(?:(?![.;]\s).){0,60}?"  # in the same sentence
    needed = {
        "prerequisites": r"prerequisites?\b",
        "CPU minutes": rf"\bCPU{near}\d{near}min",
        "GPU minutes": rf"\bGPU{near}(\d{near}min|not needed|none)",
        "download size": rf"download{near}(\d\s*[KMG]B|none|nothing)",
        "memory": rf"memory{near}\d\s*[MG]B",
    }
    for what, pattern in needed.items():
        if not re.search(pattern, head, re.IGNORECASE):
            yield f"the first cells do not state: {what}"


def is_mostly_compared(nb):
    """Point 4: at most 15 % of the code cells ask nbval for an exception."""
    excused = [
        c for c in code(nb)
        if any(tag.startswith("nbval-") for tag in tags(c)) or re.search(r"#\s*NBVAL_", c.source)
    ]  # fmt: skip
    if len(excused) > 0.15 * len(code(nb)):
        yield f"{len(excused)} of {len(code(nb))} code cells carry an nbval tag (at most 15 %)"


def is_stored_as_run(nb):
    """Point 5: counts 1..n apart from skipped cells, no errors, no widget state, under 1 MB."""
    expected = 0
    for i, cell in enumerate(code(nb)):
        if "skip-execution" in tags(cell):
            if cell.execution_count is not None or cell.outputs:
                yield f"code cell {i} is tagged skip-execution but stored as run"
            continue
        expected += 1
        if cell.execution_count != expected:
            yield f"code cell {i} has count {cell.execution_count}, expected {expected}"
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed and "raises-exception" not in tags(cell):
            yield f"code cell {i} stores an error"
    if "widgets" in nb.metadata:
        yield "metadata.widgets is stored"
    if len(nbformat.writes(nb).encode()) >= MAX_BYTES:
        yield "the file is 1 MB or larger"


def has_short_code_cells(nb):
    """Point 6: code cells of 12 lines in the median and 40 at most, lines of 88 characters."""
    lengths = [len(cell.source.splitlines()) for cell in code(nb)]
    if lengths and median(lengths) > 12:
        yield f"the median code cell has {median(lengths):g} lines (at most 12)"
    for i, cell in enumerate(code(nb)):
        if lengths[i] > 40:
            yield f"code cell {i} has {lengths[i]} lines (at most 40)"
        if any(len(line) > 88 for line in cell.source.splitlines()):
            yield f"code cell {i} has a line over 88 characters"


def talks_between_code(nb):
    """Point 7: no two code cells in a row, unless the second is an explicit check."""
    for i, (before, cell) in enumerate(zip(nb.cells, nb.cells[1:], strict=False)):
        if before.cell_type == cell.cell_type == "code" and not is_check(cell):
            yield f"cells {i} and {i + 1} are code with no prose between them"


def is_check(cell):
    """Only assertions, calls of `check` and prints, and at least one that is not a print."""
    kinds = []
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:  # a magic command
        return False
    for node in body:
        call = ast.unparse(node.value.func) if is_call(node) else ""
        kinds.append("assert" if isinstance(node, ast.Assert) else call.split(".")[0])
    return set(kinds) <= {"assert", "check", "print"} and bool({"assert", "check"} & set(kinds))


def is_call(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def has_nested_headings(nb):
    """Point 9: one title, first; then 5 to 9 sections, and no heading level skipped."""
    prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    prose = re.sub(r"^(```|~~~).*?^\1", "", prose, flags=re.DOTALL | re.MULTILINE)
    levels = [len(marks) for marks in re.findall(r"^(#+) \S", prose, flags=re.MULTILINE)]
    if not nb.cells[0].source.startswith("# ") or levels.count(1) != 1:
        yield "there is not exactly one title (#), at the very start"
    if not 5 <= levels.count(2) <= 9:
        yield f"there are {levels.count(2)} sections (##), not 5 to 9"
    for before, level in zip(levels, levels[1:], strict=False):
        if level > before + 1:
            yield f"a heading of level {level} follows one of level {before}"


def describes_its_figures(nb):
    """Point 14: each figure has alternative text, a caption line, and an opaque PNG that decodes.

    Labels and title are demanded by `r1lab.lab.show` itself, which is what writes the metadata.
    """
    for i, cell in enumerate(code(nb)):
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        printed = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
        if len(re.findall(r"^Figure: \S", printed, flags=re.MULTILINE)) < len(pictures):
            yield f"code cell {i} has a figure without a printed caption: use r1lab.lab.show"
        for output in pictures:
            if len(output.metadata.get("image/png", {}).get("alt", "")) < 20:
                yield f"code cell {i} has a figure without alternative text: use r1lab.lab.show"
            yield from (f"code cell {i}: {fault}" for fault in faults_of(output.data["image/png"]))
    for i, cell in enumerate(nb.cells):
        bare = r"!\[\s*\]\(|<img(?![^>]*\balt=[\"']\s*[^\"'\s])"
        if cell.cell_type == "markdown" and re.search(bare, cell.source):
            yield f"cell {i} has a picture without alternative text"


def faults_of(png):
    try:
        image = Image.open(io.BytesIO(base64.b64decode(png, validate=False)))
        image.load()
    except (OSError, ValueError, SyntaxError):
        yield "its PNG does not decode"
        return
    if min(image.size) < 200:
        yield f"its picture is only {image.size[0]} by {image.size[1]} pixels"
    if image.convert("RGBA").getextrema()[3][0] < 255:
        yield "its picture is transparent, and black text would vanish on a dark page"


VERBS = set(
    """analyse apply ask break build catch change check choose compare compute count decide define derive
    describe design detect diagnose distinguish draw estimate explain find fix grade identify judge
    list locate measure mend name patch predict prove read recognise reproduce run score separate
    show sketch spot state tell test train use verify watch weigh write""".split()
)
SOURCES_OF_CHANCE = {  # calls that draw at random -> the argument that must be written out
    **dict.fromkeys("rand randn randint randperm multinomial normal bernoulli".split(), "generator"),
    **dict.fromkeys(
        "SamplingParams evaluate measure_skills GRPOConfig ask paired_bootstrap".split(), "seed"
    ),
}
EXERCISES_IN = {"00_start_here": 1}  # fewer than the three of a lesson


def prose(nb):
    return "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


def items(text):
    return re.findall(r"^(?:\d+\.|[-*]) +(\S.*)", text, flags=re.MULTILINE)


def words(text):
    """Words of prose: no code, formulas, tables, tags."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|^\|[^\n]*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"</?[a-z][^>\n]*>", " ", re.sub(r"`[^`\n]*`|\$[^$\n]*\$", " x ", text))
    return re.findall(r"[^\W\d_][\w'’-]*", text)


def code_lines(nb):
    return [ln for cell in code(nb) for ln in cell.source.splitlines() if ln.strip()]


def sections(nb):
    """(heading, cells) of each `## ` section."""
    found = []
    for cell in nb.cells:
        heading = re.match(r"## (.*)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            found.append((heading[1], []))
        if found:
            found[-1][1].append(cell)
    return found


def parsed(cell):
    try:
        return list(ast.walk(ast.parse(cell.source)))
    except SyntaxError:  # a magic command
        return []


def promises_what_one_learns(nb):
    """Point 1: a title, a sentence that promises, and 3 to 5 objectives that begin with verbs."""
    head = nb.cells[0].source
    opening = re.split(r"\n(?:\d+\.|[-*]) ", head)[0].partition("\n")[2]
    if not re.search(r"(?:\S+ ){6}[^.]*\.", opening):
        yield "the first cell promises nothing in a sentence between title and objectives"
    objectives = items(head)
    if not 3 <= len(objectives) <= 5:
        yield f"the first cell lists {len(objectives)} objectives, not 3 to 5"
    for objective in objectives:
        first = (words(objective) or [""])[0]
        if first.lower() not in VERBS:
            yield f"the objective {objective[:30]!r} does not begin with a verb of VERBS"


def has_enough_prose(nb):
    """Point 8: 4 to 12 words of prose per code line, and at most 150 words in a cell."""
    ratio = len(words(prose(nb))) / max(1, len(code_lines(nb)))
    if not 4 <= ratio <= 12:
        yield f"{ratio:.1f} words of prose per code line, not 4 to 12"
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown" and len(words(cell.source)) > 150:
            yield f"cell {i} has {len(words(cell.source))} words (at most 150)"


def asserts_numbers(nb):
    """Point 11: five assertions or more with a message, on more than shapes and types."""
    asserted = [
        node for cell in code(nb) for node in parsed(cell)
        if isinstance(node, ast.Assert) and node.msg is not None
        and not re.search(r"\.shape\b|\.dtype\b|isinstance\(", ast.unparse(node.test))
    ]  # fmt: skip
    if len(asserted) < 5:
        yield f"{len(asserted)} assertions on numbers with a message (at least 5)"


def shows_its_seeds(nb):
    """Point 12: what draws at random has its seed or generator in the call; no global seeds."""
    for i, cell in enumerate(code(nb)):
        for node in parsed(cell):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            last = name.split(".")[-1]
            given = {word.arg for word in node.keywords}
            if name in ("torch.manual_seed", "random.seed") or name.startswith("np.random.seed"):
                yield f"code cell {i} seeds globally ({name}): pass a generator instead"
            elif re.match(r"(np\.random|random)\.[a-z]", name) and last != "default_rng":
                yield f"code cell {i} draws from the global generator: {name}"
            elif last in SOURCES_OF_CHANCE and not {SOURCES_OF_CHANCE[last], None} & given:
                yield f"code cell {i} calls {last} without {SOURCES_OF_CHANCE[last]}="
            elif last in ("Random", "default_rng") and not node.args:
                yield f"code cell {i} calls {last} without a seed"


def shows_before_it_moves(nb):
    """Point 16: an interactive cell comes after a figure of its section that says it without it.

    Its labels and its Reset are demanded of the widgets themselves, by their own tests.
    """
    for heading, cells in sections(nb):
        figure = False
        for cell in (c for c in cells if c.cell_type == "code"):
            if "interactive" in tags(cell):
                if not figure:
                    yield f"an interactive cell of {heading!r} comes before any figure"
                if "skip-execution" not in tags(cell):
                    yield f"an interactive cell of {heading!r} is not tagged skip-execution"
            figure |= any("image/png" in output.get("data", {}) for output in cell.outputs)


def has_exercises(nb):
    """Point 17: three exercises, each with its effort, a hint, a folded solution and a check."""
    found = 0
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            called = set(re.findall(r"\bcheck\.(\w+)\(", cell.source)) - {"names"}
            yield from (f"there is no check.{n}" for n in sorted(called - set(check.names())))
        heading = re.search(r"^#+ (Exercise \d+)", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "code" or not heading:
            continue
        found += 1
        effort = r"Difficulty [1-3] of 3 · importance [1-3] of 3 · \d+ minutes"
        following = [c for c in nb.cells[i + 1 : i + 4] if c.cell_type == "code"][:2]
        parts = {
            "difficulty, importance and minutes": re.search(effort, cell.source),
            "a hint": "<summary>Hint" in cell.source,
            "a solution in the next code cell": following and all(
                mark in following[0].source for mark in (student.BEGIN, student.END)
            ),
            "a folded solution": following
            and following[0].metadata.get("jupyter", {}).get("source_hidden"),
            "a check after it": len(following) > 1 and is_check(following[1]),
        }  # fmt: skip
        yield from (f"{heading[1]} lacks {part}" for part, has in parts.items() if not has)
    least = EXERCISES_IN.get(nb.metadata.get("name"), 3)
    if found < least:
        yield f"{found} exercises (at least {least})"


def says_what_goes_wrong(nb):
    """Point 18: a section with three symptoms, each made by one changed parameter, and its code."""
    for heading, cells in sections(nb):
        if "What could go wrong" not in heading:
            continue
        table = [c.source for c in cells if c.cell_type == "markdown" and "symptom" in c.source]
        rows = re.findall(r"^\|.*\|.*\|$", "\n".join(table), flags=re.MULTILINE)
        if not rows or "changed" not in rows[0] or len(rows) < 5:  # with its head and a rule
            yield "no table of at least 3 rows: what is changed, the symptom, the cause"
        if not any(c.cell_type == "code" for c in cells):
            yield "no code that reproduces a symptom"
        return
    yield "there is no section 'What could go wrong'"


def closes_the_circle(nb, folder=NOTEBOOKS[0].parent):
    """Point 20: a summary as long as the objectives, a glossary, links to both neighbours."""
    heading, cells = (sections(nb) or [("", [])])[-1]
    text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    if "Summary" not in heading:
        yield "the last section is not a summary"
    points, objectives = len(items(text.partition("### Glossary")[0])), len(items(nb.cells[0].source))
    if points != objectives:
        yield f"{points} points in the summary for {objectives} objectives"
    if len(re.findall(r"^\*\*|\s\*\*", text.partition("### Glossary")[2])) < 3:
        yield "the summary has no glossary of three terms or more"
    links = re.findall(r"\]\((?!https?:|#|attachment:)([^)#\s]+)", prose(nb))
    yield from (f"a link leads nowhere: {to}" for to in links if not (folder / to).exists())
    own = re.match(r"# (\d+)", nb.cells[0].source)
    for number in (int(own[1]) - 1, int(own[1]) + 1) if own else ():
        for neighbour in folder.glob(f"{number:02d}_*.ipynb"):
            if neighbour.name not in links:
                yield f"no link to {neighbour.name}"


RULES = [
    promises_what_one_learns, promises_its_cost, is_mostly_compared, is_stored_as_run,
    has_short_code_cells, talks_between_code, has_enough_prose, has_nested_headings,
    asserts_numbers, shows_its_seeds, describes_its_figures, shows_before_it_moves, has_exercises,
    says_what_goes_wrong, closes_the_circle,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    nb = nbformat.read(path, as_version=4)
    nb.metadata.name = path.stem
    faults = list(rule(nb))
    assert not faults, f"{path.name}: " + "; ".join(faults)


# From here on: the rules themselves, each shown a notebook that it must refuse.


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
    head = (
        "# A lesson\nIn this lesson a small policy learns to count, and you see why.\n\n"
        "1. **compute** an advantage;\n2. **explain** it;\n3. **break** it.\n\n"
        "Prerequisites: notebook 02. CPU: 3 minutes. GPU: not needed. "
        "Download: none. Memory: 1 GB."
    )
    cells = [new_markdown_cell(head)]
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


def broken(change):
    nb = copy.deepcopy(good())
    change(nb)
    return nb


def set_in(index, **values):
    return lambda nb: nb.cells[index].update(values)


def tag(*indices):
    return lambda nb: [nb.cells[i].metadata.update(tags=["nbval-ignore-output"]) for i in indices]


def outputs(*stored):
    return set_in(2, outputs=list(stored))


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
LONG = "\n".join(["x = 0"] * 41)

def swap(index, old, new=""):
    """Exchange words of one cell, which must be there."""

    def change(nb):
        assert old in nb.cells[index].source
        nb.cells[index].source = nb.cells[index].source.replace(old, new)

    return change


def all_code(source):
    return lambda nb: [cell.update(source=source) for cell in code(nb)]


BAD = [
    (promises_what_one_learns, swap(0, "In this lesson a small policy learns to count, and "),
     "promises nothing"),
    (promises_what_one_learns, swap(0, "2. **explain** it;\n3. **break** it."), "1 objectives"),
    (promises_what_one_learns, swap(0, "**compute** an advantage", "advantages"), "a verb"),
    (promises_its_cost, swap(0, "Prerequisites: notebook 02."), "prerequisites"),
    (promises_its_cost, swap(0, "CPU: 3 minutes."), "CPU minutes"),
    (promises_its_cost, swap(0, "3 minutes"), "CPU minutes"),
    (promises_its_cost, swap(0, "GPU: not needed."), "GPU minutes"),
    (promises_its_cost, swap(0, "Download: none."), "download size"),
    (promises_its_cost, swap(0, "Memory: 1 GB."), "memory"),
    (is_mostly_compared, tag(2, 6), "2 of 13"),
    (is_mostly_compared, all_code("# NBVAL_SKIP"), "13 of 13"),
    (is_stored_as_run, set_in(6, execution_count=7), "count 7"),
    (is_stored_as_run, set_in(6, execution_count=None), "count None"),
    (is_stored_as_run, set_in(6, outputs=[ERROR]), "error"),
    (is_stored_as_run, set_in(4, execution_count=9), "skip-execution"),
    (is_stored_as_run, set_in(4, outputs=[caption()]), "skip-execution"),
    (is_stored_as_run, lambda nb: nb.metadata.update(widgets={}), "widgets"),
    (is_stored_as_run, set_in(3, source="x" * MAX_BYTES), "1 MB"),
    (has_short_code_cells, set_in(2, source=LONG), "41 lines"),
    (has_short_code_cells, set_in(2, source="x = " + "1" * 90), "88"),
    (has_short_code_cells, all_code(LONG[:77]), "median"),
    (talks_between_code, lambda nb: nb.cells.pop(3), "no prose"),
    (talks_between_code, set_in(-2, source="x = 2\nassert x"), "no prose"),
    (talks_between_code, set_in(-2, source="print(x)"), "no prose"),
    (talks_between_code, set_in(-2, source="%matplotlib inline"), "no prose"),
    (has_enough_prose, set_in(3, source="word " * 151), "151 words"),
    (has_enough_prose, set_in(2, source="x = 0\n" * 40), "words of prose per code line"),
    (has_enough_prose, set_in(3, source="word\n" * 999), "words of prose per code line"),
    (has_nested_headings, set_in(3, source="# A second title"), "one title"),
    (has_nested_headings, set_in(0, source="A title without a mark"), "one title"),
    (has_nested_headings, set_in(3, source="#### Too deep"), "level 4 follows"),
    (has_nested_headings, lambda nb: nb.cells.__delitem__(slice(3, 13)), "3 sections"),
    (has_nested_headings, set_in(3, source="## A\n## B\n## C\n## D"), "11 sections"),
    (has_nested_headings, set_in(3, source="```\n### no heading\n```\n## S\n#### d"),
     "level 4 follows one of level 2"),
    (asserts_numbers, all_code("assert x == 1"), "0 assertions"),
    (asserts_numbers, all_code("assert x.shape == (1,), 'only the shape'"), "0 assertions"),
    (shows_its_seeds, set_in(2, source="x = torch.rand(3)"), "rand without generator="),
    (shows_its_seeds, set_in(2, source="evaluate(model, tokenizer, problems, k=4)"), "seed="),
    (shows_its_seeds, set_in(2, source="torch.manual_seed(0)"), "globally"),
    (shows_its_seeds, set_in(2, source="rng = random.Random()"), "without a seed"),
    (shows_its_seeds, set_in(2, source="x = np.random.rand(3)"), "global generator"),
    (shows_its_seeds, set_in(2, source="x = random.choice([1, 2])"), "global generator"),
    (describes_its_figures, outputs(figure(png(), alt=""), caption()), "alternative text"),
    (describes_its_figures, outputs(figure(png())), "caption"),
    (describes_its_figures, outputs(figure("AAAA"), caption()), "does not decode"),
    (describes_its_figures, outputs(figure(png((30, 20))), caption()), "30 by 20"),
    (describes_its_figures, outputs(figure(png(alpha=0)), caption()), "transparent"),
    (describes_its_figures, set_in(3, source="![](map.png)"), "cell 3"),
    (describes_its_figures, set_in(3, source='<img src="map.png">'), "cell 3"),
    (shows_before_it_moves, outputs(), "before any figure"),
    (shows_before_it_moves, set_in(3, source="## A new section"), "before any figure"),
    (shows_before_it_moves, lambda nb: nb.cells[4].metadata.update(tags=["interactive"]),
     "not tagged skip-execution"),
    (has_exercises, set_in(17, source="check.no_such_check(vote);"), "no check.no_such_check"),
    (has_exercises, set_in(17, source="vote([1])"), "a check after it"),
    (has_exercises, swap(15, "Hint", "Help"), "a hint"),
    (has_exercises, swap(15, "importance 2 of 3 · "), "difficulty, importance and minutes"),
    (has_exercises, swap(16, student.BEGIN), "a solution in the next"),
    (has_exercises, lambda nb: nb.cells[16].metadata.clear(), "a folded solution"),
    (has_exercises, lambda nb: nb.cells.__delitem__(slice(-4, -1)), "2 exercises"),
    (says_what_goes_wrong, swap(13, "What could go wrong", "Trouble"), "no section"),
    (says_what_goes_wrong, swap(13, "| `x=3` | a | b |\n"), "at least 3 rows"),
    (says_what_goes_wrong, swap(13, "changed", "cause"), "what is changed"),
    (says_what_goes_wrong, lambda nb: nb.cells.insert(14, new_markdown_cell("## Next")), "no code"),
    (closes_the_circle, swap(-1, "## Summary", "## The end"), "not a summary"),
    (closes_the_circle, swap(-1, "3. Three.\n"), "2 points in the summary for 3 objectives"),
    (closes_the_circle, swap(-1, "### Glossary"), "glossary"),
    (closes_the_circle, set_in(3, source="[there](nowhere.ipynb)"), "leads nowhere: nowhere"),
    (closes_the_circle, swap(0, "# A lesson", "# 2 · A lesson"), "no link to 03_r1_zero.ipynb"),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule):
    assert list(rule(good())) == []


@pytest.mark.parametrize(("rule", "change", "words"), BAD)
def test_rule_refuses_a_bad_notebook(rule, change, words):
    faults = list(rule(broken(change)))
    assert len(faults) >= 1 and words in "; ".join(faults)


def test_every_rule_is_seen_to_fire():
    assert {rule for rule, _, _ in BAD} == set(RULES)


@pytest.mark.parametrize("text", ["![A map of the rooms](m.png)", '<img src="m.png" alt="A map">'])
def test_a_picture_with_alternative_text_is_fine(text):
    assert list(describes_its_figures(broken(set_in(3, source=text)))) == []
