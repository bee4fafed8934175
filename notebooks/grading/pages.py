"""What grading leaves: a table with a row for each student, and a page for each."""

import csv
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from grading.lessons import exercises
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader

from r1lab.files import write_text

PAGES = Environment(
    autoescape=True, loader=ChoiceLoader([FileSystemLoader(Path(__file__).parent), PackageLoader("r1lab.report", "")])
)
FORMULA = ("=", "+", "-", "@")  # a spreadsheet runs what begins so


def points(value: float) -> str:
    """A number of points, without a fraction where it has none."""
    return f"{value:g}"


PAGES.filters["points"] = points


def file_name(student: str) -> str:
    """A name for a student's file: theirs, or its beginning where the system has no room for it."""
    name = student.replace("/", "_").replace("\\", "_")
    if len(name.encode()) <= 200 and not name.startswith("."):
        return name
    return f"{name[:40].strip('.')} {hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _cell(text):
    return f"'{text}" if text.startswith(FORMULA) else text


def write_table(out: Path, graded: Mapping[str, dict], faults: Mapping[str, list]) -> dict[str, dict]:
    """Write grades.csv, and return each student's sums.

    Args:
        graded: of each student, results by lesson.
        faults: of each student, sentences about what could not be graded.
    """
    lessons = sorted({lesson for results in graded.values() for lesson in results})
    titles = [one.title for lesson in lessons for one in exercises(lesson)]
    heads = [f"{title}{part}" for title in titles for part in ("", " tries", " check")]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["student", "points", "of", *heads, "notes"])
    sums = {}
    for student in sorted({*graded, *faults}):
        results = graded.get(student, {})
        marked = {title: one for result in results.values() for title, one in result["exercises"].items()}
        total = sum((one["points"] for one in marked.values()), 0.0)
        sums[student] = {"points": points(total), "of": len(titles)}
        notes = [*faults.get(student, []), *_notes(results)]
        row = [student, *sums[student].values()]
        for title in titles:
            one = marked.get(title)
            row += [points(one["points"]), one["tries"], one["check"]] if one else ["", "", ""]
        writer.writerow([_cell(str(value)) for value in [*row, "; ".join(notes)]])
    write_text(out / "grades.csv", table.getvalue())
    return sums


def _notes(results):
    for lesson, result in results.items():
        yield from (f"{lesson}: {note}" for note in result["notes"])
        for title, one in result["exercises"].items():
            twins = [f"word for word as in {', '.join(one['twins'])}"] if one["twins"] else []
            yield from (f"{title}: {note}" for note in [*one["notes"], *twins])


def write_pages(out: Path, graded: Mapping[str, dict], faults: Mapping[str, list], sums: Mapping[str, dict]):
    """Write a page for each student, which shows nothing of the others."""
    template = PAGES.get_template("page.html")
    for student, row in sums.items():
        results = dict(sorted(graded.get(student, {}).items()))
        page = template.render(student=student, row=row, results=results, faults=faults.get(student, []))
        write_text(out / "students" / f"{file_name(student)}.html", page)
