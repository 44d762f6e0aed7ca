"""The report as a browser lays it out. Slow: starts a real Chromium, about two seconds a page."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, make_run

from rlaif.config import ReportSection
from rlaif.stages.report import build

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (on Debian: apt-get install chromium)"),
]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000",
]  # fmt: skip

# Everything is measured from outside, since the page itself has no script. Answers land in <pre id="answer">.
WRAPPER = """<!doctype html><body style="margin:0"><iframe id="page" style="width:{width}px;height:3000px;border:0"
srcdoc="{page}"></iframe><pre id="answer"></pre><script>
addEventListener("load", () => {{
  const frame = document.getElementById("page"), page = frame.contentDocument, view = frame.contentWindow;
  const svgs = [...page.querySelectorAll("svg")].map(svg => {{
    const scale = svg.getBoundingClientRect().width / 320;
    const texts = [...svg.querySelectorAll("text")].map(t => ({{ box: t.getBBox(), text: t.textContent }}));
    const clashes = [], outside = [];
    texts.forEach((a, i) => {{
      if (a.box.x < -3 || a.box.x + a.box.width > 323) outside.push(a.text);
      texts.slice(i + 1).forEach(b => {{
        const x = Math.min(a.box.x + a.box.width, b.box.x + b.box.width) - Math.max(a.box.x, b.box.x);
        const y = Math.min(a.box.y + a.box.height, b.box.y + b.box.height) - Math.max(a.box.y, b.box.y);
        if (x > 1 && y > 4) clashes.push(a.text + " / " + b.text);
      }});
    }});
    const px = scale * parseFloat(view.getComputedStyle(svg).fontSize);
    return {{ title: svg.getAttribute("aria-label"), px, clashes, outside }};
  }});
  const small = [...page.querySelectorAll("main *, header *, footer *")].filter(e =>
    !e.closest("svg") && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) &&
    parseFloat(view.getComputedStyle(e).fontSize) < 11).map(e => e.outerHTML.slice(0, 80));
  document.getElementById("answer").textContent = JSON.stringify({{
    too_wide: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    svgs, small,
    scripts: page.scripts.length + page.images.length,
    requests: view.performance.getEntriesByType("resource").length,
    background: view.getComputedStyle(page.body).backgroundColor,
    columns: new Set([...page.querySelectorAll("#training .card")].map(c => c.getBoundingClientRect().left)).size,
    text: page.body.textContent,
  }});
}});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs") / "demo", n_prompts=40)
    build(run, ReportSection(examples=3))
    return run / "report.html"


def look(page: Path, folder: Path, width: int, *flags: str) -> dict[str, Any]:
    """What a browser makes of the page in a window of this width, in CSS pixels."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(WRAPPER.format(width=width, page=html.escape(page.read_text())))
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.S)
    assert found and found.group(1), done.stderr
    answer: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return answer


@pytest.mark.parametrize(("width", "columns"), [(320, 1), (390, 1), (1200, 3)], ids=["small", "phone", "wide"])
def test_the_page_fits_and_can_be_read(page: Path, tmp_path: Path, width: int, columns: int) -> None:
    seen = look(page, tmp_path, width)
    assert seen["too_wide"] <= 0, "the page scrolls sideways"
    assert seen["columns"] == columns
    assert seen["small"] == []
    assert len(seen["svgs"]) >= 14
    for svg in seen["svgs"]:
        assert svg["px"] >= 11, svg
        assert svg["clashes"] == [] and svg["outside"] == [], svg


def test_nothing_is_fetched_and_nothing_runs(page: Path, tmp_path: Path) -> None:
    seen = look(page, tmp_path, 1200)
    assert seen["scripts"] == 0 and seen["requests"] == 0
    assert HOSTILE in seen["text"], "hostile text is shown as it is"


def test_dark_and_light_follow_the_reader(page: Path, tmp_path: Path) -> None:
    light = look(page, tmp_path, 1200, "--blink-settings=preferredColorScheme=1")
    dark = look(page, tmp_path, 1200, "--blink-settings=preferredColorScheme=0")
    assert light["background"] == "rgb(245, 245, 242)" and dark["background"] == "rgb(18, 21, 24)"
