"""Draw each explorer's still picture: `python -m tests.tools.stills` (it needs Chromium).

The picture is the page's own SVG before anything has moved, with its style, title and finding inside.
"""

import shutil

from playwright.sync_api import sync_playwright

from r1lab.report.answers import EXPLORERS
from r1lab.report.answers import page as page_of

STILL = """() => {
    const svg = document.getElementById("picture").cloneNode(true);
    const parts = {title: document.title, desc: document.getElementById("finding").textContent};
    parts.style = document.querySelector("style")?.textContent ?? "";
    for (const [name, text] of Object.entries(parts).reverse()) {
        const element = document.createElementNS(svg.namespaceURI, name);
        element.textContent = text;
        svg.prepend(element);
    }
    svg.querySelectorAll("[role=slider]").forEach((handle) => handle.removeAttribute("tabindex"));
    svg.removeAttribute("id");
    svg.setAttribute("width", svg.viewBox.baseVal.width);
    svg.setAttribute("height", svg.viewBox.baseVal.height);
    return new XMLSerializer().serializeToString(svg) + "\\n";
}"""


def main() -> None:
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for path in sorted(EXPLORERS.glob("*.html")):
            page = browser.new_page()
            page.set_content(page_of(path.stem))
            path.with_suffix(".svg").write_text(page.evaluate(STILL), encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
