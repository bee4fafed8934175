"""A deck for each lesson, made of the lesson itself: `make slides` writes them into the book.

A section gives a slide that asks its question, with its formulas and its table; one for each *Predict
first*, whose answer unfolds; one for each picture; and its last sentence, which is the one to say at the
board. Arrow keys, space or a tap turn the pages, and the browser prints them.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbconvert.filters import markdown2html
from nbformat import NotebookNode

from r1lab.cli import exit_code
from r1lab.errors import InputError
from tests.tools.book import BOOK, for_browsers

BOX = re.compile(r'<blockquote class="alert alert-info">\s*(.*?)</blockquote>', re.DOTALL)
ANY_BOX = re.compile(r"<(blockquote|details).*?</\1>", re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$", re.DOTALL)
TABLE = re.compile(r"(?:^\|.*\n?)+", re.MULTILINE)
PICTURE = re.compile(r"^!\[.*\]\(.*\)$", re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*])")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)]*)\)")  # to another page
FORMULAS = 2  # on a slide
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<script>MathJax = {{tex: {{inlineMath: [["$", "$"]]}}}};</script>
<script defer src="../_static/mathjax/tex-chtml.js"></script>
<style>
:root {{ color-scheme: light dark; }}
html {{ scroll-snap-type: y mandatory; font: 2.4vmin/1.45 system-ui, sans-serif; }}
body {{ margin: 0; }}
section {{ box-sizing: border-box; height: 100vh; padding: 6vmin 10vmin; scroll-snap-align: start;
  display: flex; flex-direction: column; justify-content: center; gap: 2vmin; break-after: page; overflow: auto; }}
h1, h2 {{ margin: 0; line-height: 1.15; }} h1 {{ font-size: 3em; }} h2 {{ font-size: 1.9em; }}
section > :not(h1, h2) {{ font-size: 1.25em; }}
img {{ max-width: 100%; max-height: 66vh; width: auto; object-fit: contain; align-self: center; }}
img[src^="data:image/png"] {{ background: #fff; }}
figure, iframe {{ margin: 0 auto !important; min-width: 70%; }}
table {{ border-collapse: collapse; font-size: 1em !important; }}
th, td {{ border-bottom: 1px solid #8886; padding: 0.3em 0.8em; text-align: left; }}
details {{ border-left: 4px solid #3b82f6; padding-left: 1em; }} section.say {{ font-size: 1.6em; font-weight: 600; text-align: center; }}
</style>
{slides}
<script>
const pages = [...document.querySelectorAll("section")];
const turn = (by) => {{
  const now = Math.round(scrollY / innerHeight);
  pages[Math.min(pages.length - 1, Math.max(0, now + by))].scrollIntoView();
}};
addEventListener("keydown", (event) => {{
  if (["BUTTON", "INPUT", "SUMMARY"].includes(event.target.tagName)) return;
  const by = {{ArrowRight: 1, " ": 1, PageDown: 1, ArrowLeft: -1, PageUp: -1}}[event.key];
  if (by) {{ event.preventDefault(); turn(by); }}
}});
</script></html>
"""


def sections(notebook: NotebookNode) -> Iterator[tuple[str, list[NotebookNode]]]:
    """Title and cells of each section; the lesson's head is the first."""
    title, cells = "", []
    for cell in notebook.cells:
        heading = re.match(r"##? (.+)\n*", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            if cells:
                yield title, cells
            title, cells = heading[1], [nbformat.v4.new_markdown_cell(cell.source[heading.end() :])]
        else:
            cells.append(cell)
    yield title, cells


def sentences(text: str) -> list[str]:
    """The sentences of the prose: no box, table, list, code, heading, formula or picture."""
    text = ANY_BOX.sub("", FORMULA.sub("", text))
    plain = [part for part in re.split(r"\n\s*\n", text) if re.match(r"\s*[A-Z*]", part)]
    return [one.strip() for part in plain for one in SENTENCE.split(part) if one.strip().endswith((".", "?", "!"))]


def slide(*parts: str, title: str = "", level: int = 2) -> str:
    """A slide of pieces of Markdown, whose links to other pages are plain words."""
    head = f"<h{level}>{title}</h{level}>" if title else ""
    pieces = [markdown2html(LINK.sub(r"\1", part)) for part in parts if part]
    return f"<section>{head}{''.join(pieces)}</section>"


def slides_of(title: str, cells: list[NotebookNode]) -> Iterator[str]:
    """The slides of one section."""
    words = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    said = sentences(words)
    yield slide(" ".join(said[:2]), *FORMULA.findall(words)[:FORMULAS], *TABLE.findall(words)[:1], title=title)
    for box in BOX.findall(words):
        yield slide(box.replace("**Predict first.** ", ""), title="Predict first")
    for picture in PICTURE.findall(words):
        yield slide(picture, title=title)
    for cell in cells:
        for output in cell.get("outputs", ()):
            html = output.get("data", {}).get("text/html", "")
            if "<img" in html or "<iframe" in html:
                yield f"<section><h2>{title}</h2>{html}</section>"
    if len(said) > 2:
        yield slide(said[-1]).replace("<section>", '<section class="say">')


def deck(notebook: NotebookNode) -> str:
    """The whole page."""
    (title, head), *rest = sections(for_browsers(notebook))
    pages = [slide(" ".join(sentences(head[0].source)[:2]), *PICTURE.findall(head[0].source), title=title, level=1)]
    for name, cells in rest:
        pages += slides_of(name, cells)
    return PAGE.format(title=title, slides="\n".join(pages))


def make_slides(root: Path = Path(), book: Path = BOOK) -> None:
    """Write the decks. Raises InputError where the book, whose formulas they use, is missing."""
    if not (book / "index.html").is_file():
        raise InputError(f"{book} is missing; make book writes it.")
    folder = book / "slides"
    folder.mkdir(exist_ok=True)
    shutil.copytree(root / "notebooks" / "images", folder / "images", dirs_exist_ok=True)
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        page = deck(nbformat.read(path, as_version=4))
        (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")
    print(f"{len(list(folder.glob('*.html')))} decks: {folder}")


if __name__ == "__main__":
    sys.exit(exit_code(make_slides))
