"""The film of the README shows what the stored run wrote."""

from tests.tools import film


def test_the_film_is_what_the_stored_run_wrote():
    drawn = film.build()
    assert film.FILE.read_text(encoding="utf-8") == drawn, "run `python -m tests.tools.film`"
    assert len(drawn) < 100_000
    assert "prefers-reduced-motion" in drawn and "<title>" in drawn
