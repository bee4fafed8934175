"""The book: `make book` writes lessons and pages as a web site to build/book, which needs no network.

Jupyter Book (in `.venv-book`) renders the notebooks with their stored outputs. Before that, each gets
what a browser needs: folded cells stay folded, and a picture keeps its words for those who cannot see
it. After it, every link and every picture's words are checked.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from nbformat import NotebookNode

from r1lab.cli import exit_code
from r1lab.errors import InputError

BOOK = Path("build/book")
BUILDER = Path(".venv-book/bin/jupyter-book")
LEFT_OUT = (".safetensors", ".npz", ".jsonl")
PAGES = ("README", "teaching", "claims", "reading", "real_models", "commands", "architecture", "proofs")
CONFIG = {
    "title": "r1lab",
    "author": "the r1lab authors",
    "only_build_toc_files": True,
    "execute": {"execute_notebooks": "off"},
    "html": {"use_issues_button": False, "use_repository_button": False},
    "sphinx": {
        "extra_extensions": ["sphinx-mathjax-offline"],
        "config": {
            "html_show_copyright": False,
            "myst_heading_anchors": 4,
            "html_theme_options": {"navbar_start": [], "navbar_center": [], "navbar_persistent": []},
        },
    },
}
# Boxes that can be read in the dark, and printed lines that a phone shows whole.
STYLE = """
blockquote.alert { color: inherit; border-left: 4px solid; padding: 0.8rem 1rem; font-size: inherit; }
blockquote.alert-info { background: #0d6efd18; border-color: #3b82f6; }
blockquote.alert-success { background: #19875418; border-color: #2e9e6b; }
blockquote.alert a, blockquote.alert summary { color: inherit; }
.bd-content div.cell_output .text_html:has(iframe, table, img, .answers) {
  background: transparent !important; color: inherit !important; }
html[data-theme=dark] div.cell_output { --green: #3fcf9f; --orange: #f0a030; --blue: #5fb8ee; --quiet: #a6adb5; }
.bd-content div.cell_output img, .bd-content img[src$=".svg"] { background: none !important; padding: 0; }
div.cell_output table { margin: 0 0 1rem; }
div.cell_output :is(td, th) {
  text-align: right; padding: 0.3rem 0.6rem;
  border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
div.cell_output :is(caption, small) { color: inherit; caption-side: top; white-space: nowrap; }
div.cell_output th small { white-space: normal; }
div.cell_output pre, code span.pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.bd-article { line-height: 1.5; }
.bd-article h1 { font-size: 2rem; margin-top: 0.5rem; }
.bd-article h2 { font-size: 1.7rem; margin: 1.75rem 0 0.6rem; }
.bd-article h3 { font-size: 1.25rem; margin: 1.25rem 0 0.5rem; }
.bd-article p, .bd-article ul, .bd-article ol, .bd-article table, div.cell { margin-bottom: 0.75rem; }
.bd-article li { margin-bottom: 0.15rem; }
.bd-article :is(li, td, th) > p { margin: 0; }
.bd-article pre { padding: 0.5rem 0.75rem; font-size: 0.8rem; line-height: 1.35; }
div.cell details.admonition { margin: 0; box-shadow: none; font-size: 0.85em; }
details.fold { margin-bottom: 0.75rem; color: var(--pst-color-link); cursor: pointer; }
details.fold:not([open]):not(:has(~ :target, ~ * :target)) ~ * { display: none; }
"""
# A heading in a box would end the section that the box is in.
BOX = re.compile(r"<blockquote.*?</blockquote>", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FOR_A_KERNEL = re.compile(r"predict\(")  # a guess
FOLD = '\n\n<details class="fold"><summary>Read this part, too</summary></details>\n'
# How to open in JupyterLab what a web site shows anyway.
ARROW = re.compile(r"\s*(Four appendices are folded here\.\s+)?Click\sthe\sarrow\snext\sto\sthis\sheading\s.*?\.(?=\s|$)", re.DOTALL)
# A link to a folder, which a web site has no page for.
FOLDER = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")


def contents(root: Path) -> dict:
    """The table of contents, in the form of sphinx-external-toc."""
    lessons = sorted(path.with_suffix("").name for path in (root / "notebooks").glob("[0-9]*.ipynb"))
    parts = {"Lessons": [f"notebooks/{name}" for name in lessons],
             "Pages": [f"notebooks/{name}" for name in PAGES],
             "Data": ["data/README", "data/base/README"]}  # fmt: skip
    return {
        "format": "jb-book",
        "root": "README",
        "parts": [{"caption": caption, "chapters": [{"file": file} for file in files]}
                  for caption, files in parts.items()],
    }  # fmt: skip


def buttons(root: Path) -> dict:
    """Buttons for Binder and Colab, where pyproject.toml says at what address the repository is."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    if not (address := project["tool"]["r1lab"]["repository"]):
        return {}
    services = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}
    return {"repository": {"url": address, "branch": "main"}, "launch_buttons": services}


def for_browsers(notebook: NotebookNode) -> NotebookNode:
    """The notebook with tags for its folded cells, and each picture as HTML with its words."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = BOX.sub(lambda box: HEADING.sub(r"**\1**", box[0]), cell.source)
            cell.source = ARROW.sub("", cell.source)
        folded = cell.metadata.get("jupyter", {}).get("source_hidden")
        cell.metadata.tags = [*cell.metadata.get("tags", ()), *(["hide-input"] if folded else [])]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data and "text/html" not in data:
                about = output.metadata.get("image/png", {})
                alt, width = escape(about.get("alt", "")), about.get("width", "")
                data["text/html"] = (
                    f'<img alt="{alt}" width="{width}" src="data:image/png;base64,{data.pop("image/png")}">'
                )
    return notebook


def for_a_site(notebook: NotebookNode) -> NotebookNode:
    """The same without cells that only a kernel answers, and with a fold where JupyterLab has one."""
    notebook.cells = [cell for cell in notebook.cells if not FOR_A_KERNEL.match(cell.source)]
    for cell in notebook.cells:
        if cell.metadata.get("jp-MarkdownHeadingCollapsed"):
            cell.source += FOLD
    return notebook


def without_folders(text: str, place: Path) -> str:
    """A page's text with links to folders as plain words. `place`: the page's own folder."""
    return FOLDER.sub(lambda link: link[1] if (place / link[2]).is_dir() else link[0], text)


def write_sources(root: Path, folder: Path) -> None:
    """Copy what the repository tracks to the folder, made ready for the builder."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name.endswith(LEFT_OUT) or not (root / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".ipynb"):
            notebook = for_browsers(nbformat.read(root / name, as_version=4))
            nbformat.write(for_a_site(notebook), folder / name)
        elif name.endswith(".md"):
            text = (root / name).read_text(encoding="utf-8")
            (folder / name).write_text(without_folders(text, (root / name).parent), encoding="utf-8")
        else:
            shutil.copyfile(root / name, folder / name)
    (folder / "_static").mkdir()
    (folder / "_static" / "r1lab.css").write_text(STYLE, encoding="utf-8")
    for name, settings in {"_config.yml": CONFIG | buttons(root), "_toc.yml": contents(root)}.items():
        (folder / name).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


class Page(HTMLParser):
    """What a page links to, what can be linked to in it, and pictures without words."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.wordless: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.links |= {found[name] for name in ("href", "src") if found.get(name)}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        alt = found.get("alt", "")
        if tag == "img" and (not alt.strip() or alt == found.get("src")):
            self.wordless.append(found.get("src", "")[:80])


def faults(site: Path) -> list[str]:
    """Links of the site that lead nowhere, and pictures that say nothing to who cannot see them."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))
             if "_static" not in path.parts}  # the theme keeps templates there
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: {picture} has no words" for picture in page.wordless]
        for link in sorted(page.links):
            where = urlsplit(link)
            if where.scheme or where.netloc:
                continue
            target = (path.parent / unquote(where.path)).resolve() if where.path else path
            if not target.exists():
                found.append(f"{name}: {link} leads nowhere")
            elif where.fragment and target in pages and unquote(where.fragment) not in pages[target].anchors:
                found.append(f"{name}: {link} has no such place")
    return found


def make_book(root: Path = Path(), book: Path = BOOK) -> None:
    """Build the site and check it.

    Raises:
        InputError: the builder is missing or fails, a link leads nowhere, or a picture has no words.
    """
    builder = root / BUILDER
    if not builder.is_file():
        raise InputError(f"{BUILDER} is missing; make book installs it.")
    sources = book.with_name("book_sources")
    for folder in (sources, book):
        shutil.rmtree(folder, ignore_errors=True)
    sources.mkdir(parents=True)
    write_sources(root, sources)
    done = subprocess.run([builder.resolve(), "build", "--quiet", sources], env=os.environ | {"NO_COLOR": "1"})
    if done.returncode:
        raise InputError("the book could not be built; what is wrong stands above.")
    shutil.move(sources / "_build" / "html", book)
    shutil.rmtree(sources)
    if wrong := faults(book):
        raise InputError("the book has faults:\n" + "\n".join(wrong))
    print(f"The book: {book / 'index.html'}")


if __name__ == "__main__":
    sys.exit(exit_code(make_book))
