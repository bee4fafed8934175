"""The structure of the package: who imports whom, how long things are, what is never written."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from r1lab.cli import COMMANDS
from tests import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "r1lab"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]
# What serves one lesson lies beside it and may import the package. The package cannot import it: it
# would have to be declared (`test_what_is_imported_is_declared`).
READ = FILES + sorted(NOTEBOOKS.rglob("*.py"))
READ_NAMES = [str(path.relative_to(ROOT)) for path in READ]

MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50
# These only go down: to 9,000 lines and 85,000 tokens, and no file over 300 lines.
MAX_CODE_LINES, MAX_TOKENS, MAX_FILES = 9_130, 94_400, 97
LONG_FUNCTIONS: dict[str, str] = {}  # "r1lab/room/file.py:function" -> why it may be longer
# Text as code, in a process the kernel locks in.
RUNS_PROGRAMS = PACKAGE / "sandbox" / "zygote.py", NOTEBOOKS / "grading" / "worker.py"
MAX_TREE_BYTES = 20 * 2**20

# Rooms in the order in which data flows: each may import those before it, and nothing after it. A
# module at the package's top is a room of one file: a new one needs its place here.
ORDER = (
    *("errors", "files", "machine", "run", "task", "kernels", "objective", "models", "sampling", "sandbox", "rewards"),
    *("sources", "evaluation", "training", "world", "stages", "report", "launch"),
    *("doctor", "api", "lab", "cli"),
)
MAY_IMPORT = {room: set(ORDER[:place]) for place, room in enumerate(ORDER)}
# Arrows that could run forward and yet must not.
MAY_IMPORT["objective"] = MAY_IMPORT["kernels"] = {"errors"}
MAY_IMPORT["sandbox"] = {"errors", "files"}
MAY_IMPORT["report"] -= {"training", "world", "sampling"}
MAY_IMPORT["cli"] -= {"lab"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = set()


def imported_modules(source: str, module: str) -> set[str]:
    """Full names of what a module imports; `module` is dotted, a package's ends in `.__init__`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "r1lab":
            found.add(f"r1lab.{node.attr}")  # used after `import r1lab`
    return found


def forbidden_imports(source: str, module: str) -> set[str]:
    room = module.split(".")[1]
    allowed = MAY_IMPORT[room] | {"errors", room, "__version__", "__doc__"}
    names = [name for name in imported_modules(source, module) if name.startswith("r1lab.")]
    return {name for name in names if name.split(".")[1] not in allowed}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_rooms_import_only_what_the_table_allows(path):
    assert dotted(path).split(".")[1] in MAY_IMPORT, f"{path.name} is in no room of the table"
    assert not forbidden_imports(path.read_text(encoding="utf-8"), dotted(path))


@pytest.mark.parametrize(("module", "line", "refused"), [
    ("sampling.torch_sampler", "from r1lab.models.policy import Policy", False),
    ("sampling.torch_sampler", "from ..models import policy", False),
    ("sampling.torch_sampler", "from . import params", False),
    ("sampling.torch_sampler", "from ..errors import InputError\nimport torch", False),
    ("sampling.torch_sampler", "from r1lab import rewards", True),
    ("sampling.torch_sampler", "from ..rewards.format import reward", True),
    ("sampling.__init__", "from .params import SamplingParams", False),
    ("sampling.__init__", "from ..training import loop", True),
    ("training.loop", "def f():\n    import r1lab.lab.show", True),
    ("cli", "import r1lab\nprint(r1lab.__version__)", False),
    ("objective", "import r1lab\nr1lab.lab.show()", True),
    ("cli", "from r1lab.training.rl import grpo", False),
    ("cli", "from .lab import show", True),
    ("report.figures", "from r1lab.training.loop import train", True),
])  # fmt: skip
def test_the_table_is_enforced(module, line, refused):
    assert bool(forbidden_imports(line, f"r1lab.{module}")) is refused


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared_packages() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = project["dependencies"] + extras["real"] + extras["lora"]
    return {canonical(re.match(r"[\w.-]+", item).group()) for item in requirements}


def test_what_is_imported_is_declared():
    """A package that merely comes with another one may go away with it."""
    homes = metadata.packages_distributions()  # module -> the packages that install it
    missing = {
        f"{dotted(path)}: {name}"
        for path in READ
        for name in imported_modules(path.read_text(encoding="utf-8"), dotted(path))
        if name.split(".")[0] not in {"r1lab", *sys.stdlib_module_names}
        and not (NOTEBOOKS in path.parents and list(NOTEBOOKS.glob(f"{name.split('.')[0]}*")))
        and not declared_packages() & set(map(canonical, homes.get(name.split(".")[0], [])))
    }
    assert not missing


def code(source: str) -> list[tokenize.TokenInfo]:
    """Tokens of code: no comments, docstrings or layout."""
    documented = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            documented |= set(range(node.lineno, node.end_lineno + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
              tokenize.ENCODING, tokenize.ENDMARKER}  # fmt: skip
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [one for one in tokens if one.type not in layout and one.start[0] not in documented]


def code_lines(source: str) -> int:
    return len({line for one in code(source) for line in range(one.start[0], one.end[0] + 1)})


def code_tokens(source: str) -> int:
    """How many; an f-string is one, as it was before Python 3.12 took it apart."""
    count = inside = 0
    for one in code(source):
        name = tokenize.tok_name[one.type]
        count += inside == 0
        inside += (name == "FSTRING_START") - (name == "FSTRING_END")
    return count


def test_code_is_counted_without_blanks_comments_docstrings_and_layout():
    assert code_tokens('"""Doc."""\n\n# note\nx = f(1)  # tail\n') == 6
    assert code_tokens("x = f'{a + b:{width}} and {c}' + d") == 5
    source = '"""Doc\nstring."""\n\nx = """a\nb"""  # tail\n\ndef f():\n    "doc"\n    return (1,\n    2)\n'
    assert code_lines(source) == 5


def test_the_package_reads_in_a_weekend(capsys):
    total = sum(code_lines(path.read_text(encoding="utf-8")) for path in FILES)
    with capsys.disabled():
        print(f"\nr1lab/ holds {total} lines of code, of at most {MAX_CODE_LINES}")
    assert total <= MAX_CODE_LINES and len(FILES) <= MAX_FILES
    assert sum(code_tokens(path.read_text(encoding="utf-8")) for path in FILES) <= MAX_TOKENS


# What style.md replaces: words in senses that a native reader does not expect.
WORDS = "mend mends mended begun anew hitherto told bend bends warmth pleases".split()
NAMELESS = {"own", "found", "kept", "told", "begun"}  # say nothing of what a variable holds


@pytest.mark.parametrize("path", READ, ids=READ_NAMES)
def test_plain_words_are_used(path):
    text = path.read_text(encoding="utf-8").lower()
    assert not [word for word in WORDS if re.search(rf"\b{word}\b", text)]
    names = {node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)}
    assert not names & NAMELESS


@pytest.mark.parametrize("path", READ, ids=READ_NAMES)
def test_files_and_functions_are_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
        and f"{path.relative_to(ROOT)}:{node.name}" not in LONG_FUNCTIONS
    }
    assert not long


def forbidden_constructs(source: str) -> list[str]:
    """What this package never writes: running text as code, errors swallowed, loose ends."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"):
                found.append(f"line {node.lineno}: {function}(")
            found += [
                f"line {node.lineno}: {word.arg}={word.value.value}"
                for word in node.keywords
                if isinstance(word.value, ast.Constant)
                and (word.arg, word.value.value) in (("shell", True), ("weights_only", False))
            ]
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            idle = all(isinstance(line, (ast.Pass, ast.Continue)) for line in node.body)
            if node.type is None or (broad and idle):
                found.append(f"line {node.lineno}: an exception swallowed")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and re.search(r"\b(TODO|FIXME|XXX)\b", token.string):
            found.append(f"line {token.start[0]}: {token.string}")
    return found


@pytest.mark.parametrize("path", READ, ids=READ_NAMES)
def test_nothing_forbidden_is_written(path):
    found = forbidden_constructs(path.read_text(encoding="utf-8"))
    if path in RUNS_PROGRAMS:
        found = [line for line in found if not line.endswith(": exec(")]
    assert not found


@pytest.mark.parametrize(("source", "count"), [
    ("model.eval()\nre.compile('x')", 0), ("eval(text)", 1), ("exec(text)", 1),
    ("subprocess.run(text, shell=True)", 1), ("torch.load(path, weights_only=False)", 1),
    ("try:\n    f()\nexcept:\n    raise", 1), ("try:\n    f()\nexcept Exception:\n    pass", 1),
    ("try:\n    f()\nexcept Exception as e:\n    raise InputError('x') from e", 0),
    ("try:\n    f()\nexcept KeyError:\n    pass", 0), ("x = 1  # TODO: more", 1),
])  # fmt: skip
def test_forbidden_things_are_found(source, count):
    assert len(forbidden_constructs(source)) == count


def test_the_tracked_tree_stays_small():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if (ROOT / name).is_file()]
    sizes = sorted(((path.stat().st_size, path.name) for path in paths), reverse=True)
    total = sum(size for size, _ in sizes)
    assert total < MAX_TREE_BYTES, f"{total / 2**20:.1f} MiB; the largest: {sizes[:5]}"


def commands_in(text: str, program: str) -> set[str]:
    """First words after `program` in a Markdown text's code spans and blocks."""
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return set(re.findall(rf"(?<![\w./-]){program} ([a-z][a-z0-9-]*)", "\n".join(code)))


def make_targets() -> dict[str, str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z][a-z0-9-]*):.*?## (.+)$", text, re.MULTILINE))


PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]


def test_every_target_of_make_is_phony_and_explained():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE).group(1).split())
    assert phony == set(make_targets()) == set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))
    assert {"zero", "lab", "test", "test-real", "bench", "notebooks", "claims"} <= phony


def test_commands_are_found_in_markdown():
    text = "make sure\n`make zero` and `r1lab eval runs/a`\n```\n$ make test # make 13 from 9\n```"
    assert commands_in(text, "make") == {"zero", "test"}
    assert commands_in(text, "r1lab") == {"eval"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_commands_that_exist(page):
    text = page.read_text(encoding="utf-8")
    assert commands_in(text, "make") <= set(make_targets())
    assert commands_in(text, "r1lab") <= set(COMMANDS)


def test_every_command_has_its_line():
    text = (ROOT / "notebooks/commands.md").read_text(encoding="utf-8")
    assert commands_in(text, "r1lab") == set(COMMANDS)
    assert commands_in(text, "make") | {"help", "notebooks", "golden", "test-gpu", "bench-gpu"} == set(make_targets())


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_folder_of_the_package_is_in_the_wheel():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = tomllib.loads(text)["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for path in FILES}
    beside = {"r1lab.data", "r1lab.notebooks", "r1lab.notebooks.grading"}
    assert set(listed) == {".".join(folder.parts) for folder in folders} | beside
