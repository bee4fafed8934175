"""The book: folded cells, pictures' words, links; and the built site, where `make book` has been run."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r1lab.errors import InputError
from tests.tools import book, slides

BUILT = book.BOOK / "index.html"


def test_folds_and_words_of_pictures_reach_the_browser():
    picture = new_output(
        "display_data", {"image/png": "AAAA", "text/plain": "Figure"},
        metadata={"image/png": {"alt": 'a "curve" rises', "width": 600}},
    )  # fmt: skip
    folded = new_code_cell("plot()", outputs=[picture])
    folded.metadata.jupyter = {"source_hidden": True}
    boxed = new_markdown_cell("### Title\n<blockquote>\n\n### Exercise 1\n\nWrite it.\n</blockquote>")
    made = book.for_browsers(new_notebook(cells=[folded, new_code_cell("x = 1"), boxed]))
    nbformat.validate(made)
    first, second, box = made.cells
    assert box.source.startswith("### Title") and "\n**Exercise 1**\n" in box.source
    assert first.metadata.tags == ["hide-input"] and second.metadata.tags == []
    html = first.outputs[0].data["text/html"]
    assert 'alt="a &quot;curve&quot; rises" width="600"' in html and "base64,AAAA" in html


def test_a_site_has_folds_of_its_own_and_no_cell_that_only_a_kernel_answers():
    appendix = new_markdown_cell("### Appendix", metadata={"jp-MarkdownHeadingCollapsed": True})
    guess, code = new_code_cell('predict("how many", None)'), new_code_cell("x = 1")
    made = book.for_a_site(new_notebook(cells=[new_markdown_cell("# Title"), guess, appendix, code]))
    assert [cell.source.count(book.FOLD) for cell in made.cells] == [0, 1, 0]
    assert made.cells[-1].source == "x = 1"


def test_a_site_does_not_tell_how_jupyterlab_opens_a_fold():
    text = "### A vote\n\nIt wins. Click the arrow next to this heading to see\nwhat explains 86.7 %, and why. Or not."
    made = book.for_browsers(new_notebook(cells=[new_markdown_cell(text)]))
    assert made.cells[0].source == "### A vote\n\nIt wins. Or not."


def test_the_contents_name_every_lesson_and_page_that_there_is():
    contents = book.contents(Path())
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    pages = {str(path.with_suffix("")) for path in Path("notebooks").glob("*.*") if path.suffix in (".md", ".ipynb")}
    assert pages <= set(files)
    assert all(any(Path(f"{file}{end}").is_file() for end in (".md", ".ipynb")) for file in files)


@pytest.mark.parametrize(("link", "found"), [
    ('<a href="b.html#there">', []),
    ('<a href="#here"><h1 id="here">', []),
    ('<a href="https://example.org/x"><img src="p.svg" alt="a tree">', []),
    ('<a href="c.html">', ["a.html: c.html leads nowhere"]),
    ('<a href="b.html#gone">', ["a.html: b.html#gone has no such place"]),
    ('<img src="p.svg">', ["a.html: p.svg has no words"]),
    ('<img src="p.svg" alt="p.svg">', ["a.html: p.svg has no words"]),
])  # fmt: skip
def test_faults_of_a_site_are_named(link, found, tmp_path):
    (tmp_path / "a.html").write_text(link)
    (tmp_path / "b.html").write_text('<p id="there">')
    (tmp_path / "p.svg").write_text("<svg/>")
    assert book.faults(tmp_path) == found


def test_links_to_folders_become_words():
    text = "[rooms](r1lab/rewards), [a file](README.md), [a place](#x), ![a picture](notebooks)"
    assert book.without_folders(text, Path()) == text.replace("[rooms](r1lab/rewards)", "rooms")


def test_a_section_becomes_its_question_guesses_pictures_and_last_sentence():
    guess = """<blockquote class="alert alert-info">

**Predict first.** What will happen?

<details><summary>Answer</summary>

It rises. </details>

</blockquote>"""
    section = f"## 1 Why\n\nWhy does it work? We ask.\n\n$$a = b$$\n\n{guess}\n\nSo the group is the critic."
    picture = new_output("display_data", {"image/png": "AA"}, metadata={"image/png": {"alt": "a curve"}})
    head = new_markdown_cell("# 3 · A lesson\n\nYou will train a model. It learns. Then more.")
    made = slides.deck(new_notebook(cells=[
        head, new_markdown_cell(section), new_code_cell("plot()", outputs=[picture])]))  # fmt: skip
    first, question, guessed, shown, last = made.split("<section")[1:]
    assert "<h1>3 · A lesson</h1>" in first and "It learns." in first and "Then more" not in first
    assert "Why does it work? We ask." in question and "a = b" in question
    assert "What will happen?" in guessed and "<details>" in guessed and "blockquote" not in guessed
    assert 'alt="a curve"' in shown
    assert "So the group is the critic." in last


def test_slides_without_the_book_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="make book writes it"):
        slides.make_slides(book=tmp_path)


def test_without_its_builder_the_book_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="make book installs it"):
        book.make_book(tmp_path, tmp_path / "book")


@pytest.mark.skipif(not BUILT.is_file(), reason="make book has not been run")
def test_the_built_book_has_no_fault_and_needs_no_network():
    assert book.faults(book.BOOK) == []
    for path in book.BOOK.rglob("notebooks/*.html"):
        page = path.read_text(encoding="utf-8")
        assert 'src="http' not in page and '<link href="http' not in page
    assert "explorer" in (book.BOOK / "notebooks/01_grpo_math.html").read_text(encoding="utf-8")
