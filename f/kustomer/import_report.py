"""Import report.

Says what came of an import that several jobs have shared: what is recorded, why what is not, and what to do next. It
asks nobody and changes nothing.
"""

import re
from collections import Counter
from typing import Any

from f.kustomer.shared.client import Field, check, dig

# Nobody reads more, and a result has its limits.
MOST_REASONS = 50
MOST_ERRORS = 10

STATUSES = {
    "created": "recorded by this import",
    "already": "were there already",
    "refused": "refused",
    "unknown": "may be recorded or not: the next run looks",
    "left": "left for a later run",
}

Result = dict[str, Any]


def _no_rows(result: dict[str, Any]) -> str | None:
    return None if type(result.get("rows")) is int else "must be what import_messages has returned, with its rows"


class Results:
    """What the jobs of an import have returned: all rounds of them to report on, or one, to see if another follows."""

    check: dict[str, Any] = Field(
        "What import_messages has returned with check on.", example={"rows": 300}, check=_no_rows
    )
    rounds: list[dict[str, Any]] = Field(
        "What this step has returned for each round.", example=[{"parts": [{"rows": 300, "created": 300}]}]
    )
    parts: list[dict[str, Any]] = Field(
        "Instead of rounds: what each part has returned in this round, or its error.",
        example=[{"rows": 300, "created": 300}],
    )

    @staticmethod
    def wrong_together(results: dict[str, Any]) -> str | None:
        """Return what is wrong where it is not plain what to report on, or None."""
        if ("rounds" in results) == ("parts" in results):
            return "must have either rounds, with a check, or parts"
        if "parts" in results:
            return None
        rounds = results["rounds"] if isinstance(results["rounds"], list) else []
        parts = [dig(each, "parts") for each in rounds]
        right = all(isinstance(each, list) and all(isinstance(one, dict) for one in each) for each in parts)
        return None if right and "check" in results else "must have rounds of parts, and a check beside them"


class ImportIncomplete(Exception):
    """Not all rows are recorded: the text is the report, and the attributes are the numbers of rows."""

    def __init__(self, report: str, counts: Counter[str]) -> None:
        """Take the report, in Markdown, and the numbers of rows."""
        super().__init__(report)
        self.rows = sum(counts.values())
        for status in STATUSES:
            setattr(self, status, counts[status])


def main(body: "Results") -> dict[str, Any]:
    """Report on an import: return ``{"md"}``, which Windmill shows as formatted text.

    Raise ImportIncomplete with the same report when any row is refused, unknown or left. For the parts of one round
    return ``{"finished", "parts"}`` instead: whether no part would record more if it ran again, and what was given.
    """
    given, problems = check(body, Results, limit=None)
    if problems:
        from f.kustomer.shared.advice import invalid

        raise invalid(problems)
    if "parts" in given:
        return {"finished": not any(part.get("again") for part in given["parts"]), "parts": given["parts"]}
    parts = [list(runs) for runs in zip(*(each["parts"] for each in given["rounds"]), strict=False)]
    counts, results, errors = Counter[str](), [], []
    for runs in parts:
        ended = [run for run in runs if "rows" in run]
        counts += _counted(ended)
        results += ended[-1:]
        errors += [] if "rows" in runs[-1] else [runs[-1].get("error") or {}]
    # Of what a part that was killed has recorded nobody has told.
    rest = max(given["check"]["rows"] - sum(counts.values()), 0)
    counts["unknown" if errors else "left"] += rest
    report = _report(counts, results, errors)
    if counts["refused"] or counts["unknown"] or counts["left"]:
        raise ImportIncomplete(report, counts)
    return {"md": report}


def _counted(runs: list[Result]) -> Counter[str]:
    """Add up the runs of one part: what an earlier one has recorded, a later one has seen, or did not look for."""
    if not runs:
        return Counter()
    counts = Counter({status: runs[-1].get(status, 0) for status in STATUSES})
    earlier = sum(run.get("created", 0) for run in runs[:-1])
    counts["created"] += earlier
    for status in ("already", "left", "unknown", "refused"):
        same = min(counts[status], earlier)
        counts[status] -= same
        earlier -= same
    return counts


def _report(counts: Counter[str], results: list[Result], errors: list[Result]) -> str:
    rows = sum(counts.values())
    done = counts["created"] + counts["already"] == rows
    lines = [
        f"# {'All' if done else 'Not all'} of {rows:,} rows are on Kustomer's timelines",
        "",
        "| rows | |",
        "| ---: | --- |",
    ]
    lines += [f"| {counts[status]:,} | {text} |" for status, text in STATUSES.items() if counts[status]]
    lines += _reasons([each for result in results for each in result.get("reasons", [])])
    if errors:
        texts = Counter(_cell(str(each.get("message") or "no reason was given")) for each in errors)
        lines += ["", f"## Parts that failed: {len(errors)}", ""]
        lines += [f"- {text} ({number:,})" for text, number in texts.most_common(MOST_ERRORS)]
    if remarks := list(dict.fromkeys(each for result in results for each in _remarks(result))) + _others(results):
        lines += ["", "## Remarks", "", *(f"- {_cell(remark)}" for remark in remarks[:MOST_REASONS])]
    return "\n".join([*lines, *_next(counts, results, bool(errors))])


def _reasons(reasons: list[dict[str, Any]]) -> list[str]:
    """List what was wrong with rows, what the parts have alike together."""
    if not reasons:
        return []
    rows, examples = Counter[str](), dict[str, tuple[int, str]]()
    for each in sorted(reasons, key=lambda each: each["example"]):
        reason = f"{each['path']} {each['title']}".strip()
        alike = re.sub(r"\d[\d,.]*\d|\d", "#", reason)  # numbers differ from row to row where the reason is the same
        rows[alike] += each["rows"]
        examples.setdefault(alike, (each["example"], reason))
    lines = ["", "## Reasons", "", "| rows | reason | for example row |", "| ---: | --- | ---: |"]
    for alike, number in rows.most_common(MOST_REASONS):
        row, reason = examples[alike]
        lines.append(f"| {number:,} | {_cell(reason)} | {row:,} |")
    return lines


def _remarks(result: Result) -> list[str]:
    return [str(each) for each in result.get("remarks", [])]


def _others(results: list[Result]) -> list[str]:
    """Say in how many threads rows name other customers than the thread's."""
    told = [result.get("other_customers") or {} for result in results]
    threads = sum(each.get("threads", 0) for each in told)
    rows = ", ".join(f"{row:,}" for each in told for row in each.get("rows", []))
    said = (
        f"In {threads:,} conversations rows name other customers than the conversation's, whom they are recorded with"
    )
    return [f"{said} (for example row {rows[:100]})."] if threads else []


def _cell(text: str) -> str:
    """Return text from outside as it is shown in a table: as text, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _next(counts: Counter[str], results: list[Result], failed: bool) -> list[str]:
    """Say what to do."""
    files = [result["refused_rows"] for result in results if result.get("refused_rows")]
    todo = []
    if counts["left"] or counts["unknown"] or failed:
        later = ", a quarter of an hour from now" if counts["unknown"] else ""
        todo.append(
            f"Run the same import again{later}: it goes on where it ended, and records nothing twice. With a limit, "
            "leave that out for the rest."
        )
    if files:
        todo.append("Correct the refused rows, each of which says why it is refused, and import their files:")
        todo += [f"   - `{each}`" for each in files]
    elif counts["refused"]:
        todo.append("Correct the refused rows in the file, and import it again.")
    numbered = [text if text.startswith(" ") else f"1. {text}" for text in todo]
    return ["", "## What to do next", "", *numbered] if todo else []
