"""The stand-in for a flow does what Windmill's documentation says of a flow, and refuses what it does not re-create."""

import dataclasses
import json
import pathlib
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests import naive_create_message, windmill_cli
from tests.standin import flow as standin
from tests.standin import worker

Given = dict[str, Any]


@pytest.fixture(autouse=True)
def node() -> None:
    """Every flow has expressions."""
    windmill_cli.need_node()


class Failed(Exception):
    """What a script of these tests raises; the attributes are the error's extra."""

    def __init__(self, message: str = "no", **extra: object) -> None:
        super().__init__(message)
        self.extra = extra


class Scripts:
    """Runs jobs by Windmill path: each is a function of the arguments; one that is not given returns them."""

    def __init__(self, **scripts: Callable[[Given], Any]) -> None:
        self.scripts = scripts
        self.envs: list[dict[str, str]] = []
        self.given: list[Given] = []

    def __call__(self, script: standin.Script, args: Given, env: dict[str, str]) -> worker.Job:
        """Run one job."""
        self.envs.append(env)
        self.given.append(args)
        name = script.stem if isinstance(script, pathlib.Path) else script.rpartition("/")[2]
        try:
            result = self.scripts.get(name, dict)(args)
        except Failed as error:
            told = {"name": "Failed", "message": str(error), "step_id": env["WM_FLOW_STEP_ID"]}
            return worker.Job(False, None, told | ({"extra": error.extra} if error.extra else {}), "", 1, 0)
        return worker.Job(True, result, None, "", 0, 0)


def fails(_: Given) -> Any:
    """A script that always fails."""
    raise Failed


def transforms(inputs: Mapping[str, str]) -> Given:
    """Input transforms that are all expressions."""
    return {name: {"type": "javascript", "expr": expr} for name, expr in inputs.items()}


def step(id_: str, inputs: Mapping[str, str] | None = None, /, **settings: Any) -> Given:
    """A module that runs a script of the same name."""
    value = {"type": "script", "path": f"f/test/{id_}", "input_transforms": transforms(inputs or {})}
    return {"id": id_, "value": value, **settings}


def loop(iterator: str, /, *modules: Given, id_: str = "loop", **value: Any) -> Given:
    """A for-loop."""
    made = {"type": "forloopflow", "iterator": {"type": "javascript", "expr": iterator}, "modules": list(modules)}
    return {"id": id_, "value": made | {"skip_failures": False} | value}


def branch(default: list[Given], /, **branches: Given) -> Given:
    """A branchone with one step per branch; the keywords are the names in flow_input that choose it."""
    made = [{"expr": f"flow_input.{name}", "modules": [module]} for name, module in branches.items()]
    return {"id": "branch", "value": {"type": "branchone", "branches": made, "default": default}}


FAILURE = step("failure", {"error": "error", "previous": "previous_result"})


def flow(*modules: Given, failure: Given | None = None) -> Given:
    """A flow.yaml's content."""
    value = {"modules": list(modules)} | ({"failure_module": failure} if failure else {})
    return {"summary": "A flow", "value": value, "schema": {"type": "object"}}


def run(
    *modules: Given,
    scripts: Scripts | None = None,
    failure: Given | None = None,
    given: Given | None = None,
    **options: Any,
) -> standin.FlowRun:
    """Run a flow of these modules."""
    folder = pathlib.Path("/repository/f/kustomer/x__flow")
    return standin.run(flow(*modules, failure=failure), given or {}, scripts or Scripts(), folder=folder, **options)


def value_of(expr: str, given: Given | None = None, *before: Given) -> Any:
    """What an expression gives to a step that must succeed."""
    ran = run(*before, step("last", {"it": expr}), given=given)
    assert ran.ok, ran.result
    return ran.result["it"]


def error_of(expr: str, given: Given | None = None, *before: Given) -> Any:
    """The error of a step whose input can't be computed."""
    ran = run(*before, step("last", {"it": expr}), given=given)
    assert not ran.ok, ran.result
    return ran.result["error"]


def steps_of(ran: standin.FlowRun) -> list[str]:
    """The steps whose jobs ran, in order."""
    return [each.step for each in ran.jobs]


# Expressions


@pytest.mark.parametrize(
    ("expr", "value"),
    [
        ("flow_input.name", "Ada"),
        ("flow_input['name']", "Ada"),
        ("results.first.list[1].id", 2),
        ("results?.first?.list?.length", 2),
        ('results["first"].list[0]', {"id": 1}),
        ("[results.first.list[0].id, previous_result.list.length]", [1, 2]),
        (
            "({\n  name: flow_input.name,\n  ids: results.first.list.map(({ id }) => id)\n})",
            {"name": "Ada", "ids": [1, 2]},
        ),
        ("{ name: flow_input.name }", {"name": "Ada"}),
        ("`${flow_input.name}\n`", "Ada\n"),
        ("\n  flow_input.name ??\n  'nobody'\n", "Ada"),
        ("[undefined, NaN, () => 1]", [None, None, None]),
        ("() => 1", None),
        ("new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("'a;b' + `;`", "a;b;"),
    ],
)
def test_expression_gives_a_value(expr: str, value: Any) -> None:
    """A bare expression in any number of lines works, with the flow's input and the results before it."""
    first = step("first", {"list": "[{ id: 1 }, { id: 2 }]"})
    assert value_of(expr, {"name": "Ada"}, first) == value


@pytest.mark.parametrize(
    "expr",
    [
        "flow_input.missing",
        "flow_input.missing?.more",
        "results.last",
        "results.later",
        "results.later?.more",
        "results.constructor?.name",
        "undefined",
    ],
)
def test_what_is_not_there_is_null(expr: str) -> None:
    """Undefined becomes null; a step that has not run has the result null."""
    assert value_of(expr) is None


def test_static_input_is_passed_as_it_is() -> None:
    """Its text is never evaluated, and without a value it is null."""
    module = step("a")
    module["value"]["input_transforms"] = {"b": {"type": "static", "value": "flow_input.b"}, "c": {"type": "static"}}
    assert run(module, given={"b": 1}).result == {"b": "flow_input.b", "c": None}


def test_previous_result_is_the_input_at_first_and_the_step_before_then() -> None:
    """As on Windmill, the first step of a flow has the flow's input there."""
    ran = run(step("a", {"it": "previous_result.n"}), step("b", {"it": "previous_result"}), given={"n": 1})
    assert [each.args["it"] for each in ran.jobs] == [1, {"it": 1}]


@pytest.mark.parametrize("name", ["process", "require", "console", "Intl", "fetch", "Buffer", "given", "result"])
def test_expression_sees_only_the_flow(name: str) -> None:
    """What Node has beyond the language isn't there on Windmill."""
    assert value_of(f"typeof {name}") == "undefined"


def test_expression_can_not_reach_node_through_a_value() -> None:
    """No object in scope belongs to the process outside."""
    outside = ".constructor.constructor('return typeof process')()"
    assert value_of(
        f"[this{outside}, flow_input{outside}, previous_result.list{outside}]".replace("return ", "return\t"),
        {"list": []},
    ) == (["undefined"] * 3)


def test_expression_leaves_nothing_behind() -> None:
    """Each has a realm of its own, and a copy of the values."""
    first = step("first", {"a": "(globalThis.left = 1, flow_input.list.push(1))"})
    assert value_of("[typeof left, flow_input.list.length]", {"list": []}, first) == ["undefined", 0]


@pytest.mark.parametrize(
    ("expr", "told"),
    [
        ("flow_input.a.b", "TypeError"),
        ("results.later.a + 1", "TypeError"),
        ("nothing", "ReferenceError: nothing is not defined"),
        ("1 +", "SyntaxError"),
        ("(() => { throw new RangeError('far') })()", "RangeError: far"),
        ("[1].map(() => results.first)", "SyntaxError"),
        ("1 // one", "SyntaxError"),
    ],
)
def test_expression_that_throws_fails_the_step(expr: str, told: str) -> None:
    """The script doesn't run; among those that throw is a result within a function of the expression's own."""
    scripts = Scripts()
    ran = run(step("last", {"it": expr}), scripts=scripts)
    assert (ran.ok, scripts.given) == (False, [])
    error = ran.result["error"]
    assert (error["name"], error["step_id"]) == ("ExecutionErr", "last")
    assert f"`{expr}`" in error["message"]
    assert told in error["message"]
    assert [(each.args, each.job.error) for each in ran.jobs] == [({}, error)]


def test_retry_after_an_expression_that_threw_is_without_arguments() -> None:
    """The inputs are not computed again: Windmill takes those of the job that failed."""
    ran = run(step("a", {"it": "flow_input.a.b"}, retry={"constant": {"attempts": 1, "seconds": 0}}))
    assert (ran.ok, ran.result, [each.attempt for each in ran.jobs]) == (True, {}, [1, 2])


@pytest.mark.parametrize(
    "expr",
    [
        "let a = 1; return a",
        "const a = 1",
        "if (true) 1",
        "return 1",
        "flow_input.a; flow_input.b",
        "flow_input.a;",
        "[1].map(function (a) { return a })",
        "[1].map((a) => { a; })",
        "// why\n1",
        "/* nothing */",
        "",
        "1 /* a; b */",
        "resume.a",
        "params.a",
        "variable('u/a/b')",
        "resource('u/a/b')",
        "flow_env.a",
        "results['first'].id",
        "results?.['first']",
        "Object.keys(results)",
        "results[flow_input.a]",
    ],
)
def test_expression_that_windmill_may_take_differently_is_refused(expr: str) -> None:
    """Statements, names that are not re-created, and accesses that Windmill would not await."""
    with pytest.raises(NotImplementedError, match=r"^last, input_transforms\.it: "):
        run(step("last", {"it": expr}))


def test_expression_is_refused_where_it_is_not_reached() -> None:
    """A flow is looked through before it runs."""
    scripts = Scripts()
    with pytest.raises(NotImplementedError):
        run(step("a"), branch([], never=step("b", {"it": "return 1"})), scripts=scripts)
    assert scripts.given == []


BIG = 12345678901234567890


@pytest.mark.parametrize(
    ("expr", "value"),
    [
        ("results.a.length", None),
        ("results.a.missing.more", None),
        ("results.missing.more", None),
        ("results.a[5].id", None),
        ("results.a[1].id", BIG),
        ("results?.a[1].list.0", None),
        ("previous_result", [1, {"id": BIG}]),
        ("flow_input.big", BIG),
        ('flow_input["big"]', BIG),
        ("[\nresults.a[1].id\n]", BIG),
        ("[\n  results.a[0]\n]", [1]),
    ],
)
def test_plain_path_is_looked_up_without_javascript(expr: str, value: Any) -> None:
    """So nothing throws, a list has no length, numbers stay exact, and one such line stands for the whole."""
    ran = run(
        step("a"),
        step("last", {"it": expr}),
        scripts=Scripts(a=lambda _: [1, {"id": BIG}]),
        given={"big": BIG},
    )
    assert ran.ok, ran.result
    assert ran.result["it"] == value


@pytest.mark.parametrize(
    ("previous", "name", "message"),
    [
        ({"error": {"name": "Failed"}}, "Failed", None),
        ([1, {"error": {"name": "Failed"}}], "Failed", None),
        (
            [{"error": {"message": "a", "step_id": "s"}}, 1, {"error": {"name": "b"}}],
            "MultipleErrors",
            "[s] a; [1] b",
        ),
        ([1], "MultipleErrors", "Could not parse errors"),
        ({"fine": True}, "UnknownError", "Could not parse the error"),
        (None, "UnknownError", "No error found"),
    ],
)
def test_error_is_what_windmill_finds_in_the_previous_result(previous: Any, name: str, message: str | None) -> None:
    """It is never undefined: what tells no error becomes one that says so."""
    scripts = Scripts(a=lambda given: given["it"])
    modules = step("a", {"it": "flow_input.it"}), step("b", {"error": "error"})
    ran = run(*modules, scripts=scripts, given={"it": previous})
    error = ran.result["error"]
    assert (error["name"], error.get("message")) == (name, message)
    old = run(*modules, scripts=scripts, given={"it": previous}, old_worker=True)
    assert old.result["error"] == (previous.get("error") if isinstance(previous, dict) else None)


def test_error_is_looked_for_only_where_it_is_mentioned() -> None:
    """So a result in which that throws disturbs no other expression."""
    scripts = Scripts(a=lambda _: [{"error": None}] * 2)
    assert run(step("a"), step("b", {"it": "previous_result.length"}), scripts=scripts).result == {"it": 2}
    assert not run(step("a"), step("b", {"it": "error"}), scripts=scripts).ok


def test_promise_that_nothing_awaits_is_an_empty_object() -> None:
    """Whatever becomes of it, the next expression is evaluated."""
    expr = "[(async () => { throw new Error() })()]"
    assert [value_of(expr), value_of(expr)] == [[{}], [{}]]


# Steps


def test_flow_gives_its_last_steps_result() -> None:
    """The jobs are told with their scripts, attempts and arguments, in order."""
    ran = run(step("a", {"x": "1"}), step("b", {"y": "2"}))
    assert (ran.ok, ran.result, ran.waits) == (True, {"y": 2}, [])
    assert [(each.step, each.script, each.attempt, each.args) for each in ran.jobs] == [
        ("a", "f/test/a", 1, {"x": 1}),
        ("b", "f/test/b", 1, {"y": 2}),
    ]


def test_identity_hands_on_what_it_gets() -> None:
    """Without a job."""
    ran = run(step("a", {"x": "1"}), {"id": "same", "value": {"type": "identity"}}, step("b", {"x": "results.same"}))
    assert (steps_of(ran), ran.result) == (["a", "b"], {"x": {"x": 1}})


def test_job_knows_its_place_in_the_flow() -> None:
    """A step's variables name it and the flow, the same for the whole run; another run has another id."""
    scripts = Scripts()
    for _ in range(2):
        run(step("a"), step("b"), scripts=scripts)
    first, second, other, _ = scripts.envs
    job = first["WM_FLOW_JOB_ID"]
    assert first == {
        "WM_FLOW_STEP_ID": "a",
        "WM_FLOW_JOB_ID": job,
        "WM_ROOT_FLOW_JOB_ID": job,
        "WM_FLOW_PATH": "f/kustomer/x",
        "WM_JOB_PATH": "f/test/a",
    }
    assert (second["WM_FLOW_STEP_ID"], second["WM_FLOW_JOB_ID"]) == ("b", job)
    assert other["WM_FLOW_JOB_ID"] != job


def test_references_are_resolved_for_the_job_and_stored_as_they_are() -> None:
    """Windmill keeps `$res:`; only the script sees what it stands for."""
    module = step("a", {"text": "'x'"})
    module["value"]["input_transforms"]["auth"] = {"type": "static", "value": "$res:f/kustomer/api"}
    scripts = Scripts()
    ran = run(
        module, scripts=scripts, resolve=lambda value: {"apiKey": "k"} if value == "$res:f/kustomer/api" else value
    )
    assert scripts.given == [{"text": "x", "auth": {"apiKey": "k"}}]
    assert ran.jobs[0].args == {"text": "x", "auth": "$res:f/kustomer/api"}


def test_job_can_not_change_the_arguments_of_the_next() -> None:
    """Each attempt gets a copy."""

    def spoil(given: Given) -> Any:
        given["list"].append(1)
        raise Failed

    scripts = Scripts(a=spoil)
    run(step("a", {"list": "[]"}, retry={"constant": {"attempts": 2, "seconds": 0}}), scripts=scripts)
    assert scripts.given == [{"list": [1]}] * 3


def test_skipped_step_hands_on_what_it_gets() -> None:
    """skip_if sees the input, the results and the previous one, twice over."""
    seen = "flow_input.skip && results.a.x === 1 && previous_result.x === 1 && result.x === 1"
    modules = step("a", {"x": "1"}), step("b", skip_if={"expr": seen}), step("c", {"x": "results.b"})
    assert steps_of(run(*modules, given={"skip": True})) == ["a", "c"]
    assert run(*modules, given={"skip": True}).result == {"x": {"x": 1}}
    assert steps_of(run(*modules, given={"skip": False})) == ["a", "b", "c"]


def test_flow_stops_early_with_the_result_so_far() -> None:
    """stop_after_if sees the step's result; a flow that it stops is a success."""
    stop = {"expr": "result.x > flow_input.most && results.a.x === result.x", "skip_if_stopped": True}
    modules = step("a", {"x": "2"}, stop_after_if=stop), step("b")
    ran = run(*modules, given={"most": 1})
    assert (ran.ok, ran.result, steps_of(ran)) == (True, {"x": 2}, ["a"])
    assert steps_of(run(*modules, given={"most": 2})) == ["a", "b"]


@pytest.mark.parametrize(("message", "told"), [("too many", "too many"), ("", "stop after if: result.x > 1")])
def test_flow_stops_early_with_an_error(message: str, told: str) -> None:
    """With a message the stop is a failure, which reaches the failure module."""
    module = step("a", {"x": "2"}, stop_after_if={"expr": "result.x > 1", "error_message": message})
    error = {"name": "EarlyStopError", "message": told}
    assert run(module, step("b")).result == {"error": error}
    for may_fail in True, False:
        ran = run(module | {"continue_on_error": may_fail}, step("b"), failure=FAILURE)
        assert (ran.ok, steps_of(ran), ran.result["error"]) == (False, ["a", "failure"], error)


def test_failed_step_does_not_stop_the_flow_early() -> None:
    """stop_after_if is for results, not for errors."""
    ran = run(step("a", stop_after_if={"expr": "true"}), scripts=Scripts(a=fails))
    assert (ran.ok, ran.result["error"]["message"]) == (False, "no")


def test_step_that_may_fail_is_passed_over() -> None:
    """Its result is the error, and the failure module doesn't run."""
    modules = step("a", continue_on_error=True), step("b", {"x": "results.a.error.message"})
    ran = run(*modules, scripts=Scripts(a=fails), failure=FAILURE)
    assert (ran.ok, ran.result, steps_of(ran)) == (True, {"x": "no"}, ["a", "b"])


def test_last_step_that_may_fail_fails_the_flow_without_its_failure_module() -> None:
    """There is nothing left to go on with."""
    ran = run(step("a", continue_on_error=True), scripts=Scripts(a=fails), failure=FAILURE)
    assert (ran.ok, ran.result["error"]["message"], steps_of(ran)) == (False, "no", ["a"])


# Retries


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        ({}, []),
        ({"constant": {"attempts": 2, "seconds": 5}}, [5, 5]),
        ({"exponential": {"attempts": 3, "multiplier": 2, "seconds": 3, "random_factor": 50}}, [6, 18, 54]),
        ({"exponential": {"attempts": 2, "seconds": 1}}, [1, 1]),
        ({"exponential": {"attempts": 2, "seconds": 1000}}, [1000, 21600]),
        (
            {"constant": {"attempts": 1, "seconds": 7}, "exponential": {"attempts": 2, "multiplier": 1, "seconds": 2}},
            [7, 4, 8],
        ),
    ],
)
def test_retries_wait_as_told(retry: Given, waits: list[float]) -> None:
    """The constant ones come first and count for the exponent; a wait is at most six hours, and told without jitter."""
    ran = run(step("a", retry=retry), scripts=Scripts(a=fails))
    assert (ran.ok, ran.waits) == (False, waits)
    assert [each.attempt for each in ran.jobs] == list(range(1, len(waits) + 2))


def test_retry_has_the_same_arguments_and_ends_with_success() -> None:
    """The inputs are not computed again."""
    scripts = Scripts(a=lambda given: given if len(scripts.given) > 2 else fails(given))
    ran = run(step("a", {"x": "Math.random()"}, retry={"constant": {"attempts": 9, "seconds": 1}}), scripts=scripts)
    assert (ran.ok, len(ran.jobs), ran.waits) == (True, 3, [1, 1])
    assert ran.result == ran.jobs[0].args == ran.jobs[1].args


@pytest.mark.parametrize(
    "expr",
    [
        "error?.extra?.retryable === true",
        "result.error.extra.retryable",
        "previous_result.error.extra.retryable && flow_input.on",
    ],
)
def test_retry_if_decides_by_the_error(expr: str) -> None:
    """It sees the failed job's result three times over, and the flow's input."""
    retry = {"constant": {"attempts": 2, "seconds": 1}, "retry_if": {"expr": expr}}
    for retryable, jobs in (True, 3), (False, 1):

        def refuse(_: Given, retryable: bool = retryable) -> Any:
            raise Failed(retryable=retryable)

        ran = run(step("a", retry=retry), scripts=Scripts(a=refuse), given={"on": True})
        assert len(ran.jobs) == jobs


def test_retry_if_sees_no_results() -> None:
    """There, Windmill has none; an expression that throws ends the flow without its failure module."""
    retry = {"constant": {"attempts": 2, "seconds": 1}, "retry_if": {"expr": "results.a"}}
    ran = run(step("a"), step("b", retry=retry), scripts=Scripts(b=fails), failure=FAILURE)
    assert steps_of(ran) == ["a", "b"]
    assert "results is not defined" in ran.result["error"]["message"]


# The failure module


def test_failure_module_runs_after_the_retries_and_the_flow_is_failed() -> None:
    """It gets the error, and its result is the flow's."""
    scripts = Scripts(b=fails)
    ran = run(
        step("a"),
        step("b", retry={"constant": {"attempts": 1, "seconds": 1}}),
        step("c"),
        scripts=scripts,
        failure=FAILURE,
    )
    error = {"name": "Failed", "message": "no", "step_id": "b"}
    assert (ran.ok, ran.result) == (False, {"error": error, "previous": {"error": error}})
    assert steps_of(ran) == ["a", "b", "b", "failure"]
    assert scripts.envs[-1]["WM_FLOW_STEP_ID"] == "failure"


def test_failure_module_sees_the_flow() -> None:
    """The input, the results so far, the failed one among them, and when and as what the flow ran."""
    seen = step(
        "failure", {"it": "[flow_input.n, results.a.x, results.b.error.message, flow_job_id, typeof started_at]"}
    )
    scripts = Scripts(b=fails)
    ran = run(step("a", {"x": "1"}), step("b"), scripts=scripts, failure=seen, given={"n": 0})
    assert ran.result["it"] == [0, 1, "no", scripts.envs[0]["WM_FLOW_JOB_ID"], "string"]


def test_failure_module_may_fail_itself() -> None:
    """Then its error is the flow's result; it can be retried."""
    failure = step("failure", retry={"constant": {"attempts": 1, "seconds": 3}})
    ran = run(step("a"), scripts=Scripts(a=fails, failure=fails), failure=failure)
    assert (ran.ok, ran.result["error"]["step_id"], ran.waits) == (False, "failure", [3])


def test_failure_module_that_recovers_is_refused() -> None:
    """On Windmill the result `recover: true` makes the flow a success."""
    with pytest.raises(NotImplementedError, match="recover"):
        run(step("a"), scripts=Scripts(a=fails, failure=lambda _: {"recover": True}), failure=FAILURE)


@pytest.mark.parametrize(
    "module",
    [
        loop("flow_input.text", step("a")),
        loop("flow_input.a.b", step("a")),
        step("a", skip_if={"expr": "flow_input.a.b"}),
        step("a", stop_after_if={"expr": "flow_input.a.b"}),
    ],
)
def test_failure_module_does_not_run_for_what_fails_between_the_jobs(module: Given) -> None:
    """An iterator that is no list and conditions that throw end the flow at once."""
    ran = run(module, failure=FAILURE, given={"text": "abc"})
    assert (ran.ok, ran.result["error"]["name"]) == (False, "InternalError")
    assert "failure" not in steps_of(ran)


# Loops

INNER = step("inner", {"it": "flow_input.iter"})


def refuses(*values: Any) -> Callable[[Given], Any]:
    """A script that fails for these values of the loop."""
    return lambda given: fails(given) if given["it"]["value"] in values else given["it"]["value"]


@pytest.mark.parametrize("parallel", [False, True])
def test_loop_gives_the_list_of_its_iterations_last_results(parallel: bool) -> None:
    """Each iteration has its value and index, the input, and the results before the loop."""
    inner = step("inner", {"it": "[flow_input.iter.value, flow_input.iter.index, flow_input.n, results.a.x]"})
    last = step("last", {"it": "[results.inner.it, results.a.x]"})
    ran = run(
        step("a", {"x": "7"}),
        loop("flow_input.list", inner, last, parallel=parallel),
        step("b", {"it": "results.loop"}),
        given={"list": ["x", "y"], "n": 0},
    )
    assert ran.result["it"] == [{"it": [["x", 0, 0, 7], 7]}, {"it": [["y", 1, 0, 7], 7]}]


@pytest.mark.parametrize("parallel", [False, True])
def test_loop_over_nothing_gives_an_empty_list(parallel: bool) -> None:
    """And the flow goes on."""
    ran = run(loop("[]", INNER, parallel=parallel), step("b", {"it": "results.loop"}))
    assert (ran.ok, ran.result, steps_of(ran)) == (True, {"it": []}, ["b"])


def test_loop_in_a_loop_sees_both_iterations() -> None:
    """The outer one's is `iter_parent`."""
    inner = step("inner", {"it": "`${flow_input.iter_parent.value}${flow_input.iter.value}`"})
    ran = run(loop("['a', 'b']", loop("[1, 2]", inner, id_="within")))
    assert ran.result == [[{"it": "a1"}, {"it": "a2"}], [{"it": "b1"}, {"it": "b2"}]]


def test_results_of_a_sequential_loop_are_seen_outside_and_of_a_parallel_one_are_not() -> None:
    """What is seen is the last iteration's."""
    after = step("after", {"it": "results.inner"})
    given: Given = {"scripts": Scripts(inner=refuses()), "failure": FAILURE}
    assert run(loop("[1, 2]", INNER), after, **given).result == {"it": 2}
    assert run(loop("[1, 2]", INNER, parallel=True), after, **given).result == {"it": None}


def test_sequential_loop_ends_with_the_iteration_that_fails() -> None:
    """The failure module has run in there and doesn't again; the flow's result is the list so far."""
    scripts = Scripts(inner=refuses(2), failure=lambda given: given["error"]["message"])
    ran = run(loop("[1, 2, 3]", INNER), step("after"), scripts=scripts, failure=FAILURE)
    assert (ran.ok, ran.result, steps_of(ran)) == (False, [1, "no"], ["inner", "inner", "failure"])
    assert scripts.envs[-1]["WM_FLOW_STEP_ID"] == "failure-0-1"


def test_parallel_loop_runs_all_iterations_to_their_end() -> None:
    """The failure module runs in each that fails and not at the loop; the flow's result is the list of all."""
    scripts = Scripts(inner=refuses(1, 3), failure=lambda given: given["error"]["message"])
    ran = run(loop("[1, 2, 3]", INNER, parallel=True), step("after"), scripts=scripts, failure=FAILURE)
    assert (ran.ok, ran.result) == (False, ["no", 2, "no"])
    assert sorted(steps_of(ran)) == ["failure", "failure", "inner", "inner", "inner"]


def test_old_worker_runs_the_failure_module_for_a_parallel_loop_too() -> None:
    """There it gets the list, in which it finds no error."""
    scripts = Scripts(inner=refuses(1))
    ran = run(loop("[1, 2]", INNER, parallel=True), scripts=scripts, failure=FAILURE, old_worker=True)
    assert steps_of(ran).count("failure") == 2
    error = {"name": "Failed", "message": "no", "step_id": "inner"}
    handled = {"error": error, "previous": {"error": error}}
    assert (ran.ok, ran.result) == (False, {"error": None, "previous": [handled, 2]})


@pytest.mark.parametrize("parallel", [False, True])
def test_failure_module_that_fails_in_an_iteration_is_its_result(parallel: bool) -> None:
    """The list has the failure module's error there."""
    ran = run(loop("[1]", INNER, parallel=parallel), scripts=Scripts(inner=fails, failure=fails), failure=FAILURE)
    assert [each["error"]["step_id"] for each in ran.result] == ["failure-0-0"]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("failure", [None, FAILURE])
def test_loop_that_skips_failures_is_a_success(parallel: bool, failure: Given | None) -> None:
    """The failure module runs in the iterations all the same."""
    scripts = Scripts(inner=refuses(1), failure=lambda given: given["error"]["message"])
    module = loop("[1, 2]", INNER, parallel=parallel, skip_failures=True)
    ran = run(module, step("after", {"it": "results.loop[1]"}), scripts=scripts, failure=failure)
    assert (ran.ok, ran.result, steps_of(ran).count("failure")) == (True, {"it": 2}, 1 if failure else 0)


@pytest.mark.parametrize("parallel", [False, True])
def test_loop_that_fails_without_a_failure_module_gives_its_list(parallel: bool) -> None:
    """A failed iteration's result is the error."""
    ran = run(loop("[1, 2]", step("first"), INNER, parallel=parallel), scripts=Scripts(inner=refuses(2)))
    assert (ran.ok, ran.result[0], ran.result[1]["error"]["message"]) == (False, 1, "no")


def test_iteration_that_breaks_between_its_jobs_fails_the_loop() -> None:
    """No failure module has run in there, so it runs at a sequential loop."""
    module = loop("[1, 2]", step("inner", skip_if={"expr": "flow_input.a.b"}))
    ran = run(module, failure=FAILURE)
    assert (ran.ok, steps_of(ran)) == (False, ["failure"])
    assert ran.result["previous"][0]["error"]["name"] == "InternalError"


def test_stop_in_an_iteration_breaks_a_sequential_loop_only() -> None:
    """The flow goes on after it; a parallel loop's other iterations run anyway."""
    inner = step("inner", {"it": "flow_input.iter"}, stop_after_if={"expr": "result === 2"})
    scripts = Scripts(inner=refuses(), second=lambda _: "second")
    modules = loop("[1, 2, 3]", inner, step("second")), step("after", {"it": "results.loop"})
    assert run(*modules, scripts=scripts).result == {"it": ["second", 2]}
    modules[0]["value"]["parallel"] = True
    assert run(*modules, scripts=scripts).result == {"it": ["second", 2, "second"]}


@pytest.mark.parametrize(
    "parallelism", [2, {"type": "static", "value": 2}, {"type": "javascript", "expr": "flow_input.most"}]
)
def test_parallel_iterations_run_at_the_same_time_up_to_their_bound(parallelism: Any) -> None:
    """Two meet at a barrier, and never a third."""
    meeting, lock, now, most = threading.Barrier(2, timeout=10), threading.Lock(), [0], [0]

    def meet(_: Given) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meeting.wait()
        with lock:
            now[0] -= 1
        meeting.wait()

    module = loop("[1, 2, 3, 4]", step("inner"), parallel=True, parallelism=parallelism)
    ran = run(module, scripts=Scripts(inner=meet), given={"most": 2})
    assert (ran.ok, most) == (True, [2])


def test_parallel_loop_without_a_bound_runs_all_at_the_same_time() -> None:
    """Each waits for the other four."""
    meeting = threading.Barrier(5, timeout=10)
    module = loop("[1, 2, 3, 4, 5]", step("inner"), parallel=True)
    assert run(module, scripts=Scripts(inner=lambda _: meeting.wait() >= 0)).result == [True] * 5


def test_iterations_are_sub_flows_with_names_of_their_own() -> None:
    """Those of a parallel loop are roots too."""
    scripts = Scripts()
    run(
        step("a"),
        loop("[1, 2]", step("x"), step("y")),
        loop("[1]", step("z"), id_="many", parallel=True),
        scripts=scripts,
    )
    a, x, y, other, _, z = scripts.envs
    assert x["WM_FLOW_JOB_ID"] == y["WM_FLOW_JOB_ID"]
    assert len({each["WM_FLOW_JOB_ID"] for each in (a, x, other, z)}) == 4
    assert [each["WM_FLOW_PATH"].removeprefix("f/kustomer/x") for each in (a, x, other, z)] == [
        "",
        "/loop-0",
        "/loop-1",
        "/forloop-0",
    ]
    assert {each["WM_ROOT_FLOW_JOB_ID"] for each in (a, x, other)} == {a["WM_FLOW_JOB_ID"]}
    assert z["WM_ROOT_FLOW_JOB_ID"] == z["WM_FLOW_JOB_ID"]


def test_loop_over_one_plain_script_has_no_sub_flows() -> None:
    """Without a failure module its jobs are the flow's own, under the loop's id, each after the one before."""
    scripts = Scripts(inner=lambda given: given["it"])
    inner = step("inner", {"it": "[flow_input.iter.value, previous_result]"})
    ran = run(step("a", {"x": "1"}), loop("[1, 2]", inner), scripts=scripts)
    assert ran.result == [[1, {"x": 1}], [2, [1, {"x": 1}]]]
    assert len({each["WM_FLOW_JOB_ID"] for each in scripts.envs}) == 1
    assert [each["WM_FLOW_STEP_ID"] for each in scripts.envs] == ["a", "loop", "loop"]
    retried = step("inner", {"it": "previous_result"}, retry={})
    assert run(loop("[1]", retried), scripts=scripts).result == [{"iter": {"index": 0, "value": 1}}]


# Branches


def test_first_branch_whose_expression_is_true_runs() -> None:
    """Else the default; the result is the last step's, and what ran in it is seen outside."""
    modules = (
        branch([step("other")], one=step("a", {"x": "flow_input.one"}), two=step("b", {"x": "2"})),
        step("after", {"it": "[results.branch, results.a, results.b]"}),
    )
    assert run(*modules, given={"one": 1, "two": 1}).result["it"] == [{"x": 1}, {"x": 1}, None]
    assert run(*modules, given={"two": 1}).result["it"] == [{"x": 2}, None, {"x": 2}]
    assert steps_of(run(*modules)) == ["other", "after"]


def test_empty_branch_hands_on_what_it_gets_and_has_no_result() -> None:
    """The step right after it still finds that under the branch's name; a later one throws."""
    before, after = step("a", {"x": "1"}), step("b", {"it": "results.branch.x + 1"})
    assert run(before, branch([]), after).result == {"it": 2}
    ran = run(before, branch([]), step("c"), after)
    assert "Failed to fetch result for step 'branch'" in ran.result["error"]["message"]
    assert run(before, branch([])).result == {"x": 1}
    looked_up = step("b", {"it": "results.branch.x", "all": "results.branch"})
    assert run(before, branch([]), step("c"), looked_up).result == {"it": None, "all": None}


def test_branch_that_ends_with_an_empty_one_has_a_result() -> None:
    """It is what the empty one hands on."""
    outer = branch([step("a", {"x": "1"}), branch([])]) | {"id": "outer"}
    assert run(outer, step("c"), step("b", {"it": "[results.outer.x]"})).result == {"it": [1]}


def test_failure_in_a_branch_is_handled_once() -> None:
    """In there, under an id that says where."""
    scripts = Scripts(b=fails)
    ran = run(step("a"), branch([step("b")]), step("c"), scripts=scripts, failure=FAILURE)
    assert (ran.ok, ran.result["error"]["step_id"], steps_of(ran)) == (False, "b", ["a", "b", "failure"])
    assert scripts.envs[-1]["WM_FLOW_STEP_ID"] == "failure-1"
    assert scripts.envs[-1]["WM_FLOW_PATH"] == "f/kustomer/x/branchone-0"


def test_branch_expression_that_throws_fails_the_step() -> None:
    """Unlike other conditions, this one reaches the failure module."""
    module = branch([])
    module["value"]["branches"] = [{"expr": "flow_input.a.b", "modules": []}]
    ran = run(module, failure=FAILURE)
    assert (ran.ok, ran.result["error"]["step_id"]) == (False, "branch")


def test_stop_in_a_branch_stops_the_flow() -> None:
    """With what the branch came to."""
    ran = run(branch([step("a", {"x": "1"}, stop_after_if={"expr": "true"}), step("b")]), step("c"))
    assert (ran.ok, ran.result, steps_of(ran)) == (True, {"x": 1}, ["a"])


# What is not re-created


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (step("a", suspend={"required_events": 1}), "module with suspend"),
        (step("a", sleep={"type": "static", "value": 1}, mock={}), "module with mock, sleep"),
        (step("a", retry={"linear": {}}), "retry with linear"),
        (step("a", retry={"constant": {"attempts": 1, "minutes": 1}}), "constant with minutes"),
        (
            step("a", stop_after_if={"expr": "1", "error_include_result": True}),
            "stop_after_if with error_include_result",
        ),
        (
            step("a", stop_after_if={"expr": "1", "error_message": "", "skip_if_stopped": True}),
            "a: skip_if_stopped with",
        ),
        ({"id": "a", "value": {"type": "branchall", "branches": []}}, "a: a module of type branchall"),
        ({"id": "a", "value": {"type": "script", "path": "f/a/b", "hash": "1"}}, "script with hash"),
        (
            {"id": "a", "value": {"type": "branchone", "branches": [{"skip_failure": True}]}},
            "branch with skip_failure",
        ),
        (loop("[]", iterator={"type": "javascript", "expr": "[]", "value": []}), "javascript with value"),
        ({"id": "a", "value": {"type": "rawscript", "language": "bun", "content": "!inline a.ts"}}, "a: a language"),
        ({"id": "a", "value": {"type": "rawscript", "language": "python3", "content": "def main():"}}, "a: content"),
        (loop("[]", step("a", suspend={})), "module with suspend"),
        (loop("[]", squash=True), "forloopflow with squash"),
        (branch([step("a", suspend={})]), "module with suspend"),
        (branch([], one=step("a", suspend={})), "module with suspend"),
        (loop("[]") | {"retry": {}}, "loop: retry of anything but a script"),
        (loop("[]") | {"stop_after_if": {"expr": "1"}}, "loop: stop_after_if of a loop"),
        (
            {"id": "a", "value": {"type": "script", "path": "f/a/b", "input_transforms": {"b": {"type": "ai"}}}},
            "a: an input of type ai",
        ),
    ],
)
def test_module_that_uses_more_is_refused(changed: Given, told: str) -> None:
    """By name, and before anything runs."""
    scripts = Scripts()
    with pytest.raises(NotImplementedError) as raised:
        run(step("first"), changed, scripts=scripts)
    assert str(raised.value).startswith(told)
    assert scripts.given == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tag": "x"}, "flow with tag"),
        ({"value": {"modules": [], "early_return": "a"}}, "value with early_return"),
        ({"value": {"modules": [], "failure_module": loop("[]")}}, "a failure_module of type forloopflow"),
        ({"value": {"modules": [], "failure_module": step("f", skip_if={"expr": "1"})}}, "failure_module with skip_if"),
    ],
)
def test_flow_that_uses_more_is_refused(changed: Given, told: str) -> None:
    """In the flow and its failure module too."""
    with pytest.raises(NotImplementedError) as raised:
        list(standin.steps(flow() | changed))
    assert str(raised.value) == told


def test_two_steps_with_one_id_are_refused() -> None:
    """One result would hide the other, wherever the steps are."""
    with pytest.raises(ValueError, match="two steps have the id a"):
        run(step("a"), loop("[]", step("a")))


# Checks without a run


def test_steps_are_told_in_order_with_what_they_may_refer_to() -> None:
    """A branch's or loop's own steps are in scope in it only."""
    raw = {"type": "rawscript", "language": "python3", "content": "!inline b.py", "lock": "!inline b.lock"}
    first = step("a", {"x": "1"}, retry={"retry_if": {"expr": "4"}}, skip_if={"expr": "2"}, stop_after_if={"expr": "3"})
    told = list(
        standin.steps(
            flow(
                first,
                loop("5", {"id": "b", "value": raw}, step("c"), parallel=True, parallelism=2),
                branch([step("e")], one=step("d")),
                failure=FAILURE,
            )
        )
    )
    assert [(each.id, each.type, each.script, sorted(each.scope), each.in_loop) for each in told] == [
        ("a", "script", "f/test/a", [], False),
        ("loop", "forloopflow", None, ["a"], False),
        ("b", "rawscript", "b.py", ["a"], True),
        ("c", "script", "f/test/c", ["a", "b"], True),
        ("branch", "branchone", None, ["a", "loop"], False),
        ("d", "script", "f/test/d", ["a", "loop"], False),
        ("e", "script", "f/test/e", ["a", "loop"], False),
        ("failure", "script", "f/test/failure", ["a", "branch", "loop"], False),
    ]
    assert told[0].expressions == {"input_transforms.x": "1", "skip_if": "2", "stop_after_if": "3", "retry_if": "4"}
    assert told[1].expressions == {"iterator": "5"}
    assert told[4].expressions == {"branches.0": "flow_input.one"}
    assert told[0].input_transforms == {"x": {"type": "javascript", "expr": "1"}}


@pytest.mark.parametrize(
    ("expr", "ids"),
    [
        ("results.a.b + results?.b?.c", {"a", "b"}),
        ("results['a'].results.b ?? results?.['c']", {"a", "c"}),
        ("({ results: flow_input.results.a, b: `${results.b}` })", {"b"}),
        ("'results.a' /* results.b */ // results.c", set()),
        ("flow_input.list.map((results_) => results_.a)", set()),
    ],
)
def test_referenced_results_are_read_from_the_syntax(expr: str, ids: set[str]) -> None:
    """Not from strings, comments, or names that only look alike."""
    assert standin.referenced_results(expr) == ids


@pytest.mark.parametrize("expr", ["results[flow_input.a]", "Object.keys(results)", "results.a && results"])
def test_reference_that_can_not_be_read_is_refused(expr: str) -> None:
    """It could be to any step."""
    with pytest.raises(NotImplementedError, match="without the name of a step"):
        standin.referenced_results(expr)


# Running jobs

JOBS = {
    "result": ("def main(a, b=2, *, c=3): return [a, b, c, {1, 2} and 'x']", {"b": None, "z": 1}),
    "nothing": ("def main(): pass", {}),
    "tuple and time": ("import datetime\ndef main(): return (1, datetime.date(2026, 1, 2))", {}),
    "nan": ("def main(): return {'a': float('nan'), 'b': 'NaN', 'c': b'x', 'd': '\\0'}", {}),
    "conversion": ("import datetime\ndef main(d: datetime.date, b: bytes): return [str(d), len(b)]", {"b": "eA=="}),
    "kwargs": ("def main(**given): return given", {"a": None}),
    "no json": ("def main(): return {(1, 2): 3}", {}),
    "error": (
        "import datetime as d\ndef main():\n    e = ValueError('no')\n    e.at = d.date(2026, 1, 2)\n    raise e",
        {},
    ),
    "nan in an error": ("def main():\n    e = ValueError('no')\n    e.n = float('nan')\n    raise e", {}),
    "exit": ("import sys\ndef main():\n    sys.exit(0)", {}),
    "log": ("import sys\ndef main():\n    print('out')\n    print('err', file=sys.stderr)", {}),
    "import": ("import not_installed_anywhere\ndef main(): pass", {}),
    "dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int\ndef main(): return D(1).a", {}),
    "variables": ("import os\ndef main(): return [os.environ['WM_FLOW_STEP_ID'], os.environ['WM_EMAIL']]", {}),
}


@pytest.mark.parametrize(("text", "args"), JOBS.values(), ids=JOBS)
def test_job_in_process_is_as_the_workers(tmp_path: pathlib.Path, text: str, args: Given) -> None:
    """Result, error, log and exit status are the same, up to where the script lies."""
    file = tmp_path / "job.py"
    file.write_text(text, encoding="utf-8")
    env = {"WM_FLOW_STEP_ID": "a"}
    ours, theirs = standin.run_in_process(file, args, env), standin.run_as_worker()(file, args, env)
    assert (ours.ok, ours.result, ours.exit_status) == (theirs.ok, theirs.result, theirs.exit_status)
    if theirs.error is None or theirs.error["name"] != "ExecutionErr":
        assert ours.logs == theirs.logs
    else:
        assert ours.logs.splitlines()[-1:] == theirs.logs.splitlines()[-1:]
    varying = ("stack", "message") if theirs.error and theirs.error["name"] == "ExecutionErr" else ("stack",)
    for job in ours, theirs:
        for key in varying:
            (job.error or {}).pop(key, None)
    assert ours.error == theirs.error


def test_job_in_process_leaves_nothing_behind(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the module nor its output; a file is read anew each time."""
    file = tmp_path / "job.py"
    for text, result in ("def main(): return 1", 1), ("def main(): return print(2)", None):
        file.write_text(text, encoding="utf-8")
        assert standin.run_in_process(file, {}, {}).result == result
        assert str(file) not in {getattr(module, "__file__", None) for module in sys.modules.copy().values()}
    assert capsys.readouterr().out == ""


def test_job_in_process_is_a_module_of_this_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what it uses can be replaced."""
    monkeypatch.setattr(naive_create_message, "main", lambda **given: given)
    job = standin.run_in_process("tests/naive_create_message", {"auth": 1, "more": 2}, {})
    assert job.result == {"auth": 1, "body": None}


def test_jobs_in_process_run_one_at_a_time(tmp_path: pathlib.Path) -> None:
    """Their output and variables are the process' own, so parallel iterations take turns."""
    file = tmp_path / "inner.py"
    text = """
        import os, threading

        def main():
            threading.Event().wait(0.02)
            print(os.environ["WM_FLOW_PATH"])
    """
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    raw = {"type": "rawscript", "language": "python3", "content": "!inline inner.py", "input_transforms": {}}
    module = loop("[0, 1, 2, 3]", {"id": "inner", "value": raw}, parallel=True)
    ran = standin.run(flow(module), {}, standin.run_in_process, folder=tmp_path)
    path = f"u/test/{tmp_path.name}/forloop-"
    assert sorted(each.job.logs for each in ran.jobs) == [f"{path}{index}\n" for index in range(4)]


@pytest.mark.parametrize("run_job", [standin.run_in_process, standin.run_as_worker()], ids=["in process", "as worker"])
def test_flow_of_files_runs_in_its_folder(tmp_path: pathlib.Path, run_job: standin.RunJob) -> None:
    """A rawscript's content is the file beside flow.yaml, and its path the flow's with the step's id."""
    folder = tmp_path / "f" / "kustomer" / "record__flow"
    folder.mkdir(parents=True)
    texts = {
        "add.py": "def main(a, b): return a + b",
        "refuse.py": """
            import os

            def main(total):
                error = ValueError(f"{total} is too many")
                error.path = os.environ["WM_JOB_PATH"]
                raise error
        """,
        "failure.py": "def main(error): return {'told': error}",
    }
    for name, text in texts.items():
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")

    def raw(id_: str, inputs: Mapping[str, str]) -> Given:
        content = {"content": f"!inline {id_}.py", "lock": f"!inline {id_}.lock"}
        return {
            "id": id_,
            "value": {"type": "rawscript", "language": "python3", "input_transforms": transforms(inputs), **content},
        }

    made = flow(
        raw("add", {"a": "flow_input.a", "b": "2"}),
        raw("refuse", {"total": "results.add"}),
        failure=raw("failure", {"error": "error"}),
    )
    ran = standin.run(made, {"a": 1}, run_job, folder=folder)
    assert [(each.step, each.script) for each in ran.jobs] == [
        ("add", folder / "add.py"),
        ("refuse", folder / "refuse.py"),
        ("failure", folder / "failure.py"),
    ]
    told = ran.result["told"]
    assert told.pop("stack")
    assert (ran.ok, told) == (
        False,
        {
            "name": "ValueError",
            "message": "3 is too many",
            "extra": {"path": "f/kustomer/record/refuse"},
            "step_id": "refuse",
        },
    )


def test_run_is_plain_data() -> None:
    """What a flow came to can be printed and compared."""
    ran = run(step("a", {"x": "1"}))
    assert json.loads(json.dumps(dataclasses.asdict(ran)))["jobs"][0]["step"] == "a"
