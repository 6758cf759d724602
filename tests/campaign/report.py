#!/usr/bin/env python3
"""hayauma campaign report: text, JSON, and the page, which a browser looks at where there is one.

report.py [TEST...]"""

import contextlib
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "hostile"), str(TESTS / "http"),
                str(pathlib.Path(__file__).resolve().parent)]

from campaign import Campaigns, csv  # noqa: E402
from crash import WORLD  # noqa: E402
from engine import Sink, program  # noqa: E402
from proc import Failure, TempDir  # noqa: E402
from talk import Skip, check, run  # noqa: E402

XHTML, SVG = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/1999/xhtml}svg"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextlib.contextmanager
def sent():
    """An engine whose campaign spring@acme was sent to a world that refuses some; the directory of its files."""
    with contextlib.closing(TempDir("hayauma-report-")) as temp:
        directory = pathlib.Path(temp.path)
        (directory / "world.yaml").write_text(WORLD)
        with Sink(behaviour=directory / "world.yaml") as sink:
            more = {"destinations": {"*": {"retry": ["1s"]}}, "routes": {}, "dns": sink.dns()}
            with Campaigns(sink.port, more) as engine:
                spring = engine.create(tenant="acme")
                engine.add(spring, csv(0, 700))
                engine.order(spring, "start")
                engine.wait_state(spring, "done", 120)
                yield engine, spring, directory


def page_of(engine, file):
    engine.command("campaign", "report", "spring", "--html", file)
    return file.read_text()


def check_svg(svg):
    """Every mark of a plot lies in it."""
    _, _, width, height = map(float, svg.get("viewBox").split())
    for rect in svg.iter(f"{XHTML}rect"):
        x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        if not (0 <= x <= x + w <= width + 2 and 0 <= y <= y + h <= height + 0.1 and w > 0):
            raise Failure(f"{rect.attrib} is outside of {svg.get('viewBox')}")
    for line in svg.iter(f"{XHTML}polyline"):
        for x, y in (map(float, point.split(",")) for point in line.get("points").split()):
            if not (0 <= x <= width and 0 <= y <= height):
                raise Failure(f"{x},{y} is outside of {svg.get('viewBox')}")


def test_command():
    """Text, JSON and page say what HTTP says; the page needs nothing but itself."""
    with sent() as (engine, spring, directory):
        whole = engine.whole(spring)
        check("json", engine.rows("campaign", "report", "spring@acme"), [whole])
        text = engine.command("campaign", "report", spring)
        check("columns", max(map(len, text.splitlines())) <= 80, True)
        for said in (rf"delivered +{whole['delivered']}", rf"deferrals +{whole['deferrals']}\n", "InvalidRecipient",
                     r"\(no exchanger\) +0 +100", "Delivered per", "90 % within"):
            if not re.search(said, text):
                raise Failure(f"no {said} in\n{text}")
        html = page_of(engine, directory / "page.html")
        page = xml.etree.ElementTree.fromstring(html)
        if re.search(r"(?i)<script|\son\w+=|url\(|@import|href|src=|javascript:", html):
            raise Failure("the page loads or runs something")
        check("only its own names", set(re.findall(r"https?://[^\"]*", html)), {"http://www.w3.org/1999/xhtml"})
        for svg in page.iter(SVG):
            check_svg(svg)
        check("plots", len([svg for svg in page.iter(SVG) if svg.get("role") == "img"]), 3)
        words = " ".join(page.itertext())
        for said in ("spring", "acme", "done", f"{whole['delivered']}", "mx1.x3.example", "QuotaIssues", "(no exchanger)"):
            check(said, said in words, True)
        bars = [svg for svg in page.iter(SVG) if svg.get("aria-label") == "Letters over time"]
        titles = [t.text for t in bars[0].iter(f"{XHTML}title")]
        check("the rate's bars", sum(int(re.search(r"delivered ([\d,]+)", t)[1].replace(",", ""))
                                     for t in titles if "delivered" in t), whole["delivered"])
        for arguments, status in ((("report",), 2), (("report", "nobody"), 1), (("show", "spring", "--html", "x"), 2),
                                  (("report", "spring", "--html", "x", "--json"), 2),
                                  (("report", "spring", "--html", directory / "none" / "x"), 1)):
            done = subprocess.run([program(), "campaign", *arguments, "-c", engine.file], capture_output=True,
                                  timeout=60, check=False)
            check(f"{arguments} {done.stderr}", (done.returncode, done.stderr != b""), (status, True))


def test_browser():
    """A browser shows the page: everything is there, nothing overflows, and it is light or dark."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise Skip("no Chromium; run tools/deps browser")
    with sent() as (engine, _, directory):
        page = directory / "page.html"
        page_of(engine, page)

        def look(*more):
            return subprocess.run(
                [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--log-level=3",
                 f"--user-data-dir={directory}/profile", *more, page.as_uri()], capture_output=True, timeout=120,
                check=True).stdout

        dom = look("--dump-dom").decode()
        check("the whole page", "by Hayauma</footer>" in dom and dom.count("<svg") > 5, True)
        sizes = []
        for number, more in enumerate(((), ("--blink-settings=preferredColorScheme=0",))):
            shot = directory / f"{number}.png"
            look(f"--screenshot={shot}", "--window-size=900,1600", *more)
            check("screenshot", struct.unpack(">II", shot.read_bytes()[16:24]), (900, 1600))
            sizes.append(shot.read_bytes())
        check("light and dark differ", sizes[0] != sizes[1], True)
        if min(map(len, sizes)) < 30000:
            raise Failure(f"the page is empty: {list(map(len, sizes))} bytes")


if __name__ == "__main__":
    run(globals())
