"""The flow import_history carries wires only, and what goes over them fits: check, rounds of parts, report."""

import importlib
import inspect
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from f.kustomer.import_report import ImportIncomplete
from f.kustomer.shared.errors import KustomerError
from tests import form_schema, windmill_cli
from tests.history.conftest import KEY, Body, Site, history
from tests.standin.bulk import Bulk, Item

FOLDER = "f/kustomer/import_history__flow"
FLOW = windmill_cli.read_yaml(windmill_cli.ROOT / FOLDER / "flow.yaml")
PATH = re.compile(r"(flow_input|results|result)(\.\w+)+")


def modules(inside: Body = FLOW["value"]) -> Iterator[Body]:
    """Every step of the flow, those in loops too."""
    for each in inside["modules"]:
        yield each
        if "modules" in each["value"]:
            yield from modules(each["value"])


MODULES = {each["id"]: each for each in modules()}
SCRIPTS = {name: each["value"] for name, each in MODULES.items() if each["value"]["type"] == "script"}


def resolve(expression: str, known: Body) -> Any:
    """What an expression gives: a plain path, or an object of plain paths and of nothing else but true."""
    text = expression.strip()
    if text.startswith("("):
        pairs = [each.strip().split(": ") for each in text.strip("({})\n ").split(",")]
        return {name: True if path == "true" else resolve(path, known) for name, path in pairs}
    assert PATH.fullmatch(text), text
    found: Any = known
    for name in text.split("."):
        found = found.get(name)
    return found


def call(step: str, known: Body) -> Any:
    """Run a step with what the flow gives it."""
    main = importlib.import_module(SCRIPTS[step]["path"].replace("/", ".")).main
    given = {name: resolve(each["expr"], known) for name, each in SCRIPTS[step]["input_transforms"].items()}
    assert set(given) == set(inspect.signature(main).parameters)
    return json.loads(json.dumps(main(**given)))


def run(given: Body) -> Any:
    """What the flow does, by its wires, with its parts one after the other."""
    results: Body = {}
    known: Body = {"flow_input": given, "results": results}
    results["check"] = call("check", known)
    results["rounds"] = []
    for _ in range(100):
        results["parts"] = []
        for each in resolve(MODULES["parts"]["value"]["iterator"]["expr"], known):
            inner = {**known, "flow_input": {**given, "iter": {"value": each}}}
            try:
                results["parts"].append(call("part", inner))
            except KustomerError as error:
                results["parts"].append({"error": {"name": type(error).__name__, "message": str(error)}})
        done = call("finished", known)
        results["rounds"].append(done)
        if resolve(MODULES["finished"]["stop_after_if"]["expr"], {"result": done}):
            return call("report", known)
    raise AssertionError("it never came to its end")


@pytest.fixture
def given(site: Site, monkeypatch: pytest.MonkeyPatch) -> Body:
    """The flow's inputs, for parts of some rows only."""
    monkeypatch.setattr("f.kustomer.history.plan.ROWS_OF_A_PART", 30)
    return {"auth": site.auth, "file": {"s3": KEY}, "app": "old-helpdesk", "workers": 3}


def test_every_expression_is_a_plain_path_or_an_object_of_such() -> None:
    """What a flow decides, a Python step decides, where it is typed, tested and quick."""
    anything = dict.fromkeys(FLOW["schema"]["properties"])
    known = {"flow_input": {**anything, "iter": {"value": {}}}, "results": {name: {} for name in MODULES}, "result": {}}
    for each in MODULES.values():
        value = each["value"]
        for about in value.get("input_transforms", {}).values():
            resolve(about["expr"], known)
        for name in ("iterator", "parallelism"):
            if name in value:
                resolve(value[name]["expr"], known)


def test_every_input_of_the_form_reaches_a_step_that_knows_it() -> None:
    """None is lost on the way, or is called otherwise."""
    read = set(re.findall(r"flow_input\.(?!iter)(\w+)", json.dumps(FLOW["value"])))
    assert read == set(FLOW["schema"]["properties"])
    known = importlib.import_module("f.kustomer.import_messages").History.__annotations__
    for step in ("check", "part"):
        body = SCRIPTS[step]["input_transforms"]["body"]["expr"]
        assert set(re.findall(r"^\s*(\w+):", body, re.MULTILINE)) <= set(known)


def test_committed_form_is_the_one_of_the_step() -> None:
    """Whoever changes a type, a description or a limit of the step runs `make schema`."""
    assert FLOW["schema"] == form_schema.import_schema()


def test_a_part_that_fails_leaves_the_others_and_a_round_does_not() -> None:
    """What a part's error is, the report tells; an error of a round would come again and again."""
    assert MODULES["parts"]["value"]["skip_failures"] is True
    assert MODULES["parts"]["value"]["parallel"] is True
    assert MODULES["rounds"]["value"]["skip_failures"] is False
    assert [name for name, each in MODULES.items() if "stop_after_if" in each] == ["finished"]


def test_a_history_is_imported_by_its_parts(site: Site, given: Body) -> None:
    """All of it, each message once, and the report says so."""
    rows = history(200, threads=40)
    site.put(rows)
    report = run(given)["md"]
    assert "# All of 200 rows" in report
    site.assert_once(rows)


@pytest.mark.parametrize("seconds", [10, 40])
def test_parts_that_end_by_themselves_are_run_again(site: Site, given: Body, seconds: int) -> None:
    """Until each has come to its end."""
    rows = history(100, threads=20)
    site.put(rows)
    site.kustomer.jobs.bulk = Bulk(per_item=0.1)
    assert "# All of 100 rows" in run({**given, "seconds": seconds, "fresh": True})["md"]
    site.assert_once(rows)


def test_rows_that_are_not_recorded_fail_the_flow(site: Site, given: Body) -> None:
    """With the report as its error: wrong rows, and one that Kustomer refuses, each in a file to correct."""
    rows = history(100, threads=20)
    for at in (7, 8, 9):
        rows[at]["sentAt"] = "yesterday"
    site.put(rows)

    def fails(item: Item) -> str | None:
        return "no such attribute" if item.get("externalId") == rows[50]["messageId"] else None

    site.kustomer.jobs.bulk = Bulk(fails=fails)
    with pytest.raises(ImportIncomplete) as raised:
        run(given)
    report = str(raised.value)
    assert "| 96 | recorded by this import |" in report
    assert "| 3 | sentAt must be a date" in report
    assert "no such attribute" in report
    files = re.findall("`(.+ndjson)`", report.replace("\\_", "_"))
    assert sum(len(site.files[each].splitlines()) for each in files) == 4


def test_a_limited_run_is_reported_as_such(site: Site, given: Body) -> None:
    """What it leaves is told, and how to go on."""
    rows = history(100, threads=20)
    site.put(rows)
    with pytest.raises(ImportIncomplete) as raised:
        run({**given, "limit": 20, "fresh": True})
    assert "leave that out for the rest" in str(raised.value)
    assert "# All of 100 rows" in run({**given, "fresh": True})["md"]
    site.assert_once(rows)


def test_parts_that_are_killed_are_told_and_the_next_run_goes_on(
    site: Site, given: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has their errors only."""
    rows = history(100, threads=20)
    site.put(rows)
    counted = itertools.count()
    claim = importlib.import_module("f.kustomer.history.jobs").Notes.claim

    def fail_sometimes(notes: Any) -> None:
        if next(counted) % 2:
            raise KustomerError("the worker is gone", outcome="unknown")
        claim(notes)

    with monkeypatch.context() as patched:
        patched.setattr("f.kustomer.history.jobs.Notes.claim", fail_sometimes)
        with pytest.raises(ImportIncomplete) as raised:
            run(given)
    assert "the worker is gone" in str(raised.value)
    assert vars(raised.value)["unknown"] > 0
    assert "# All of 100 rows" in run(given)["md"]
    site.assert_once(rows)
