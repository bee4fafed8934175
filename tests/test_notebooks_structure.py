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


RULES = [
    promises_its_cost, is_mostly_compared, is_stored_as_run, has_short_code_cells,
    talks_between_code, has_nested_headings, describes_its_figures,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    faults = list(rule(nbformat.read(path, as_version=4)))
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
        "# A lesson\nPrerequisites: notebook 02. CPU: 3 minutes. GPU: not needed. "
        "Download: none. Memory: 1 GB."
    )
    cells = [new_markdown_cell(head)]
    for i in range(7):
        cells.append(new_markdown_cell(f"## Section {i}\nWhat comes next, and why."))
        cells.append(new_code_cell(f"x = {i}\nprint(x)", execution_count=i + 1))
    cells[2].outputs = [figure(png()), caption()]
    cells.append(new_code_cell("assert x == 6, 'the last section'", execution_count=8))
    cells.append(new_markdown_cell("Move the slider."))
    cells.append(new_code_cell("slider()", metadata={"tags": ["interactive", "skip-execution"]}))
    return new_notebook(cells=cells)


def broken(change):
    nb = copy.deepcopy(good())
    change(nb)
    return nb


def drop_words(words):
    def change(nb):
        nb.cells[0].source = nb.cells[0].source.replace(words, "")

    return change


def set_in(index, **values):
    return lambda nb: nb.cells[index].update(values)


def tag(*indices):
    return lambda nb: [nb.cells[i].metadata.update(tags=["nbval-ignore-output"]) for i in indices]


def outputs(*stored):
    return set_in(2, outputs=list(stored))


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
LONG = "\n".join(["x = 0"] * 41)

BAD = [
    (promises_its_cost, drop_words("Prerequisites: notebook 02."), "prerequisites"),
    (promises_its_cost, drop_words("CPU: 3 minutes."), "CPU minutes"),
    (promises_its_cost, drop_words("3 minutes"), "CPU minutes"),
    (promises_its_cost, drop_words("GPU: not needed."), "GPU minutes"),
    (promises_its_cost, drop_words("Download: none."), "download size"),
    (promises_its_cost, drop_words("Memory: 1 GB."), "memory"),
    (is_mostly_compared, tag(2, 4), "2 of 9"),
    (is_mostly_compared, lambda nb: [c.update(source="# NBVAL_SKIP") for c in code(nb)], "9 of 9"),
    (is_stored_as_run, set_in(4, execution_count=7), "count 7"),
    (is_stored_as_run, set_in(4, execution_count=None), "count None"),
    (is_stored_as_run, set_in(4, outputs=[ERROR]), "error"),
    (is_stored_as_run, set_in(-1, execution_count=9), "skip-execution"),
    (is_stored_as_run, set_in(-1, outputs=[caption()]), "skip-execution"),
    (is_stored_as_run, lambda nb: nb.metadata.update(widgets={}), "widgets"),
    (is_stored_as_run, set_in(3, source="x" * MAX_BYTES), "1 MB"),
    (has_short_code_cells, set_in(2, source=LONG), "41 lines"),
    (has_short_code_cells, set_in(2, source="x = " + "1" * 90), "88"),
    (has_short_code_cells, lambda nb: [c.update(source=LONG[:77]) for c in code(nb)], "median"),
    (talks_between_code, lambda nb: nb.cells.pop(3), "no prose"),
    (talks_between_code, set_in(-3, source="x = 2\nassert x"), "no prose"),
    (talks_between_code, set_in(-3, source="print(x)"), "no prose"),
    (talks_between_code, set_in(-3, source="%matplotlib inline"), "no prose"),
    (has_nested_headings, set_in(3, source="# A second title"), "one title"),
    (has_nested_headings, set_in(0, source="A title without a mark"), "one title"),
    (has_nested_headings, set_in(3, source="#### Too deep"), "level 4 follows"),
    (has_nested_headings, lambda nb: nb.cells.__delitem__(slice(3, 9)), "4 sections"),
    (has_nested_headings, set_in(3, source="## A\n## B\n## C\n## D"), "10 sections"),
    (has_nested_headings, set_in(3, source="```\n### no heading\n```\n## S\n#### d"),
     "level 4 follows one of level 2"),
    (describes_its_figures, outputs(figure(png(), alt=""), caption()), "alternative text"),
    (describes_its_figures, outputs(figure(png())), "caption"),
    (describes_its_figures, outputs(figure("AAAA"), caption()), "does not decode"),
    (describes_its_figures, outputs(figure(png((30, 20))), caption()), "30 by 20"),
    (describes_its_figures, outputs(figure(png(alpha=0)), caption()), "transparent"),
    (describes_its_figures, set_in(3, source="![](map.png)"), "cell 3"),
    (describes_its_figures, set_in(3, source='<img src="map.png">'), "cell 3"),
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
