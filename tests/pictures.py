"""Make the pictures (`make pictures`): of forms, filled in, and of the timeline that the demo ends with.

A form's picture shows Windmill's own form component, of the npm package windmill-components, in Chromium. The first run
installs and builds that in ~/.cache/kustomer-form: about 2 GB, some minutes. The package is under the AGPL, and no part
of it is here.
"""

import functools
import html
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tests import demo, png, windmill_cli
from tests.lock import ROOT
from tests.standin.kustomer import Kustomer

PAGE = ROOT / "tests" / "form_page"
CACHE = pathlib.Path.home() / ".cache" / "kustomer-form"
BESIDE = ROOT / "f" / "kustomer"
TIMELINE = BESIDE / "timeline.svg"

WIDTH = 760  # of a form, in pixels: what Windmill gives it beside its menu
HEIGHT = 1400  # of a picture at most: what is below it is for rare cases

# What somebody would fill in.
FORMS: dict[str, dict[str, Any]] = {
    "create_message": {
        "channel": "email",
        "direction": "in",
        "app": "acme-inbox",
        "conversation": "65a1b2c3d4e5f60718293a4f",
        "customer": "65a1b2c3d4e5f60718293a50",
        "preview": "Hello,\nmy order 1042 has not come yet. Could you tell me where it is?\nAda",
        "subject": "Order 1042",
        "externalId": "<CAF1042@mail.acme.example>",
        "sentAt": "2026-01-31T09:30:00.000Z",
        "status": "received",
    },
    "record_message": {
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "threadId": "<CAF1042@mail.acme.example>",
        "email": "ada@example.com",
        "name": "Ada Lindqvist",
        "subject": "Order 1042",
        "text": "Hello,\nmy order 1042 has not come yet. Could you tell me where it is?\nAda",
        "files": [{"s3": "inbox/invoice.pdf"}],
        "sentAt": "2026-01-31T09:30:00.000Z",
        "app": "acme-inbox",
    },
    "import_messages": {
        "file": {"s3": "history/tickets-2019.csv.gz"},
        "app": "old-helpdesk",
        "columns": {
            "messageId": "Message ID",
            "threadId": "Ticket",
            "sentAt": "Created at",
            "email": "Requester e-mail",
            "direction": "Direction",
            "subject": "Subject",
            "text": "Body",
        },
        "channel": "email",
        "check": True,
    },
}

# What Windmill's server says, by the end of the path; to anything else it has nothing.
ANSWERS: dict[str, Any] = {
    "/resources/type/listnames": ["kustomer", "s3_object"],
    "/resources/list": [{"path": "f/kustomer/api", "resource_type": "kustomer"}],
}


def build() -> None:
    """Install the form and build its page, unless that was done since the page's files were last changed."""
    index = CACHE / "dist" / "index.html"
    if index.exists() and index.stat().st_mtime > max(file.stat().st_mtime for file in PAGE.iterdir()):
        return
    print(f"Installing and building Windmill's form in {CACHE}, about 2 GB: this takes some minutes.", flush=True)
    shutil.copytree(PAGE, CACHE, dirs_exist_ok=True)
    install = ["npm", "install", "--legacy-peer-deps", "--ignore-scripts", "--silent", "--no-audit", "--no-fund"]
    for command in install, ["npm", "run", "--silent", "build"]:
        subprocess.run(command, cwd=CACHE, check=True)


@contextmanager
def served(form: dict[str, Any]) -> Iterator[str]:
    """Serve the page with a form's schema and arguments, and as much of Windmill's API as it asks for."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path != "/form.json" and not path.startswith("/api/"):
                return super().do_GET()
            answers = (answer for end, answer in ANSWERS.items() if path.endswith(end))
            body = json.dumps(form if path == "/form.json" else next(answers, [])).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return None

        def log_message(self, *_: object) -> None:
            pass

    directory = functools.partial(Handler, directory=str(CACHE / "dist"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), directory) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def browse(url: str, *options: str) -> str:
    """Open a page in Chromium, let ten seconds of its own time pass, and return what is printed."""
    browser = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), "")
    if not browser:
        sys.exit("Chromium is needed here: install it, then run make pictures again")
    with tempfile.TemporaryDirectory() as profile:
        own = (f"--user-data-dir={profile}", "--headless=new", "--no-sandbox", "--hide-scrollbars", "--no-first-run")
        quiet = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
        command = [browser, *own, *quiet, "--virtual-time-budget=10000", *options, url]
        done = subprocess.run(command, check=True, timeout=90, capture_output=True, text=True)
    return done.stdout


def picture_form(step: str, body: dict[str, Any]) -> None:
    """Write the picture of a step's form beside the step."""
    schema = windmill_cli.read_yaml(BESIDE / f"{step}.script.yaml")["schema"]
    with served({"schema": schema, "given": {"auth": "$res:f/kustomer/api", "body": body}}) as url:
        page = browse(url, f"--window-size={WIDTH},{HEIGHT}", "--dump-dom")
        error, height = (re.search(rf'<html[^>]* data-{name}="([^"]*)"', page) for name in ("error", "height"))
        if error or not height:
            sys.exit(f"The form of {step} is not shown: {html.unescape(error[1]) if error else 'nothing came'}")
        size = f"--window-size={WIDTH},{min(HEIGHT, int(height[1]))}"
        picture = BESIDE / f"{step}.png"
        browse(url, size, f"--screenshot={picture}")
    picture.write_bytes(png.with_palette(picture.read_bytes()))


def demo_ends_with() -> list[str]:
    """Return the timeline after the demo's answer, on a day and in a conversation that are always the same."""
    with Kustomer() as kustomer:
        now = datetime(2026, 1, 31, 9, 35, tzinfo=UTC)
        kustomer.now = now.timestamp
        _, (*_, job), _ = demo.deliver(kustomer, now)
        there = job.result["conversation"]["id"]
        return [line.replace(there, "65a1b2c3d4e5f60718293a4f") for line in demo.shown_timeline(kustomer, job)]


def svg(lines: Iterable[str]) -> str:
    """Return a picture of lines of text, as a terminal shows them."""
    lines = list(lines)
    width, height = 8 * max(map(len, lines)) + 32, 20 * len(lines) + 28
    texts = [
        f'<text x="16" y="{20 * at + 30}">{html.escape(line, quote=False)}</text>' for at, line in enumerate(lines)
    ]
    font = "font: 13.3px 'DejaVu Sans Mono', Menlo, Consolas, monospace; white-space: pre; fill: #e6e6e6"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
            f"<style>text {{ {font} }}</style>",
            '<rect width="100%" height="100%" rx="8" fill="#1e2530"/>',
            *texts,
            "</svg>\n",
        ]
    )


def main() -> None:
    """Make all of them, each beside what it shows."""
    TIMELINE.write_text(svg(demo_ends_with()), encoding="utf-8")
    build()
    for step, body in FORMS.items():
        picture_form(step, body)


if __name__ == "__main__":
    main()
