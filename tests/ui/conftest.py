"""One JupyterLab and one browser for all tests of this folder.

Without a browser they are skipped, with the command that installs one; where R1LAB_REQUIRE_UI is
set, as in the gate, a missing browser is a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import sync_playwright

from tests import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REMEDY = ".venv/bin/python -m playwright install --with-deps chromium"
# The first keeps cells outside the window in the page; the second keeps pop-ups out of it.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

OPEN = """async (path) => {
    const factory = "Notebook", open = "docmanager:open";
    const panel = await window.jupyterapp.commands.execute(open, {path, factory});
    await panel.context.ready;
    await panel.sessionContext.ready;
    window.notebook = panel;
}"""
CLOSE = """async () => {
    await window.notebook.sessionContext.shutdown();
    window.notebook.dispose();
}"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as running:
        own = running.chromium.executable_path
        path = next(filter(None, map(shutil.which, [*BROWSERS, own])), None)
        if path is None:
            missing = pytest.fail if os.environ.get("R1LAB_REQUIRE_UI") else pytest.skip
            missing(f"no browser to drive JupyterLab with; install one: {REMEDY}")
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        opened = running.chromium.launch(executable_path=path, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """A page with JupyterLab on it, served from an empty folder."""
    home = tmp_path_factory.mktemp("jupyter")
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    (home / "work").mkdir()
    env = {name: value for name, value in os.environ.items() if name != "R1LAB_STATIC"} | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(NOTEBOOKS)]),
        "no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        "--ServerApp.port=0", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={home / 'work'}", "--LabApp.news_url=None",
    ]  # fmt: skip
    log = home / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=env, stdout=file, stderr=file)
    try:
        page = browser.new_page(viewport={"width": 1100, "height": 1400})
        page.set_default_timeout(60_000)
        page.goto(address(server, log), timeout=120_000)
        page.wait_for_function("window.jupyterapp !== undefined")
        page.evaluate("window.jupyterapp.restored")
        yield Lab(page, home / "work")
    finally:
        server.terminate()
        try:
            server.wait(60)  # it asks its kernels to end, which takes long on a busy machine
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def address(server: subprocess.Popen, log: Path) -> str:
    """Where the server listens, once it says so."""
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1:\d+/lab", log.read_text())
        if found:
            return found.group()
        if server.poll() is not None:
            break
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


class Lab:
    """What a person does in JupyterLab: open a notebook, run it, look at what a cell shows."""

    def __init__(self, page, folder: Path):
        self.page, self.folder = page, folder

    def run(self, name: str, *cells: str):
        """Open a new notebook of these cells, run all, and return the notebook's panel."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        self.page.evaluate(OPEN, f"{name}.ipynb")  # waits for the kernel, or running would ask
        self.do("notebook:run-all-cells")
        return self.page.locator(".jp-NotebookPanel:visible")

    def close(self) -> None:
        """Shut the kernel down and close the notebook, so that kernels do not add up."""
        self.page.evaluate(CLOSE)

    def do(self, command: str, **arguments) -> None:
        self.page.evaluate(
            "([name, args]) => { window.jupyterapp.commands.execute(name, args); }", [command, arguments]
        )
