"""One folder that installs r1lab without a network: `make offline` writes it to build/offline.

It holds the wheels of the exact versions, r1lab's own among them, in which data and lessons are; the book, if
it has been built; and `install.sh`. It is for the Python and the system that it was made with.
"""

from __future__ import annotations

import platform
import shutil
import sys
from functools import partial
from pathlib import Path

import tyro

from r1lab.cli import exit_code
from r1lab.errors import InputError
from r1lab.files import whole
from tests.tools.bootstrap import ROOT, install_torch, run

SCRIPT = Path(__file__).with_name("offline.sh")


def fetch(wheels: Path, python: Path, *arguments: str) -> None:
    """Put the wheels of packages into a folder; what has none is built. Raises InputError if that fails."""
    run(str(python), "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), *arguments)


def write_script(folder: Path) -> None:
    """Write `install.sh` for this Python and this system."""
    text = SCRIPT.read_text(encoding="utf-8")
    here = {"PYTHON": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "SYSTEM": f"{platform.system()} {platform.machine()}"}  # fmt: skip
    for name, value in here.items():
        text = text.replace(f"@{name}@", value)
    (folder / "install.sh").write_text(text, encoding="utf-8")


def pack(out: Path, project: Path, book: Path) -> None:
    """Write the folder, or leave the earlier one as it was."""
    python = Path(sys.executable)
    with whole(out) as folder:
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        install_torch(python, partial(fetch, wheels))
        print("Fetching the other packages: about 500 MB", flush=True)
        fetch(wheels, python, "--find-links", str(wheels), "-c", str(project / "constraints.txt"), str(project))
        if book.is_dir():
            shutil.copytree(book, folder / "book")
        else:
            print("The book is not in it: make book writes it, then run make offline again.")
        write_script(folder)


def main(out: Path = Path("build/offline")) -> None:
    """Pack r1lab for computers without a network.

    Args:
        out: the folder; what was in it is deleted.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        pack(out.absolute(), ROOT, ROOT / "build/book")
    except OSError as error:
        raise InputError(f"{out} was not written ({error.strerror}); give another folder: --out FOLDER.") from None
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.0f} MB; on the other computer: sh {out.name}/install.sh")


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
