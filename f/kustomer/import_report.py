"""Import report.

Says what came of an import that several jobs have shared: what is recorded, why what is not, and what to do next. It
asks nobody and changes nothing.
"""

import re
from collections import Counter
from typing import Any

from f.kustomer.shared.advice import invalid
from f.kustomer.shared.inputs import Field, check

# Nobody reads more, and a result has its limits.
MOST_REASONS = 50
MOST_ERRORS = 10

STATUSES = {
    "created": "recorded by this import",
    "already": "were there already",
    "refused": "refused",
    "unknown": "may be recorded or not",
    "left": "left for a later run",
}

Result = dict[str, Any]


class Results:
    """What the jobs of an import have returned: all rounds of them to report on, or one, to see if another follows."""

    check: dict[str, Any] = Field("What import_messages has returned with check on.", example={"rows": 300})
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
        return None if "parts" in results or "check" in results else "must have a check beside rounds"


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
        raise invalid(problems)
    if "parts" in given:
        return {"finished": not any(part.get("again") for part in given["parts"]), "parts": given["parts"]}
    return _reported(given["check"].get("rows", 0), [each.get("parts", []) for each in given["rounds"]])


def _reported(rows: int, rounds: list[list[Result]]) -> dict[str, str]:
    counts, results, errors = Counter[str](), [], []
    for runs in zip(*rounds, strict=True):
        found = [run for run in runs if "rows" in run]
        errors += [] if runs[-1] in found else [runs[-1].get("error") or {}]
        results += found[-1:]
        counts += _counted(found)
    # What a part that has failed would have counted is known from the check only.
    counts["left"] += max(rows - sum(counts.values()), 0)
    report = _report(counts, results, errors)
    if counts["refused"] or counts["unknown"] or counts["left"]:
        raise ImportIncomplete(report, counts)
    return {"md": report}


def _counted(runs: list[Result]) -> Counter[str]:
    """Add up the runs of one part: what an earlier one has recorded, a later one has found, or did not look for."""
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
    lines += _reasons(results)
    lines += _errors(errors)
    remarks = dict.fromkeys(each for result in results for each in result.get("remarks", []))
    lines += ["", "## Remarks", "", *(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n".join([*lines, *_next(counts, results, errors)])


def _reasons(results: list[Result]) -> list[str]:
    """List what was wrong with rows, what is alike together."""
    told = sorted((each for result in results for each in result.get("problems", [])), key=lambda each: each["row"])
    # Numbers differ from row to row where the reason is the same.
    reasons = [f"{each['path']} {each['title']}".strip() for each in told]
    alike = [re.sub(r"\d[\d,.]*\d|\d", "#", each) for each in reasons]
    first = {key: (each["row"], reason) for key, each, reason in reversed(list(zip(alike, told, reasons, strict=True)))}
    if not told:
        return []
    lines = ["", "## Reasons", "", "| rows | reason | for example row |", "| ---: | --- | ---: |"]
    for key, number in Counter(alike).most_common(MOST_REASONS):
        row, reason = first[key]
        lines.append(f"| {number:,} | {_cell(reason)} | {row:,} |")
    if len(told) < sum(result.get("refused", 0) + result.get("unknown", 0) for result in results):
        lines += ["", "Not every reason is counted here; the files of refused rows have all of them."]
    return lines


def _cell(text: str) -> str:
    """Return text from outside as it is shown in a table: as text, in one line."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _errors(errors: list[Result]) -> list[str]:
    if not errors:
        return []
    texts = [_cell(str(each.get("message") or "no reason was given")) for each in errors]
    lines = ["", f"## Parts that failed: {len(errors)}", ""]
    return lines + [f"- {text} ({number:,})" for text, number in Counter(texts).most_common(MOST_ERRORS)]


def _next(counts: Counter[str], results: list[Result], errors: list[Result]) -> list[str]:
    """Say what to do."""
    files = [result["refused_rows"] for result in results if result.get("refused_rows")]
    todo = []
    if counts["left"] or counts["unknown"] or errors:
        todo.append(
            "Run the same import again: it goes on where it ended, and records nothing twice. With a limit, leave that "
            "out for the rest."
        )
    if files:
        todo.append("Correct the refused rows, each of which says why it is refused, and import their files:")
        todo += [f"   - `{each}`" for each in files]
    elif counts["refused"]:
        todo.append("Correct the refused rows in the file, and import it again.")
    numbered = [text if text.startswith(" ") else f"1. {text}" for text in todo]
    return ["", "## What to do next", "", *numbered] if todo else []
