"""The film of the README shows what the stored run wrote; the diagrams are what their tool draws."""

from pathlib import Path

import pytest

from tests.tools import diagrams, film


def test_the_film_is_what_the_stored_run_wrote():
    drawn = film.build()
    assert film.FILE.read_text(encoding="utf-8") == drawn, "run `python -m tests.tools.film`"
    assert len(drawn) < 100_000
    assert "prefers-reduced-motion" in drawn and "<title>" in drawn


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_a_diagram_is_what_the_tool_draws(name):
    stored = (diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert stored == diagrams.draw(name), "run `python -m tests.tools.diagrams`"


def test_every_lesson_shows_its_place_in_the_chain():
    for lesson in sorted(Path("notebooks").glob("*.ipynb")):
        assert f"images/pipeline-{lesson.name[:2]}.svg" in lesson.read_text(encoding="utf-8")
