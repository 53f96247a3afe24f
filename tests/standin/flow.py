"""A stand-in for how Windmill runs a flow: its steps, expressions, retries, loops, branches and failure module.

It follows what https://www.windmill.dev/docs/openflow and https://www.windmill.dev/docs/flows (error_handling, retries,
flow_loops, flow_branches, early_stop) describe, and where they are silent, what a flow can observe. The scripts
themselves are run by somebody else: see `run_in_process` and `run_as_worker`.

What a flow uses beyond that raises NotImplementedError before anything runs, so that nothing passes by being ignored.
"""

import atexit
import collections
import contextlib
import copy
import dataclasses
import datetime
import functools
import importlib.util
import io
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
import unittest.mock
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.standin import worker

EVALUATOR = pathlib.Path(__file__).with_name("flow_eval.mjs")

Script = pathlib.Path | str
RunJob = Callable[[Script, dict[str, Any], dict[str, str]], worker.Job]
Module = Mapping[str, Any]

INLINE = "!inline "
LONGEST_WAIT_SECONDS = 6 * 60 * 60  # of a retry; Windmill's own

# What is re-created, of https://www.windmill.dev/docs/openflow: kind of object -> its keys.
_KNOWN = {
    "flow": {"summary", "description", "value", "schema"},
    "value": {"modules", "failure_module"},
    "module": {"id", "summary", "value", "retry", "continue_on_error", "skip_if", "stop_after_if"},
    "failure_module": {"id", "summary", "value", "retry"},
    "script": {"type", "path", "input_transforms"},
    "rawscript": {"type", "language", "content", "lock", "input_transforms"},
    "forloopflow": {"type", "iterator", "parallel", "parallelism", "skip_failures", "modules"},
    "branchone": {"type", "branches", "default"},
    "branch": {"summary", "expr", "modules"},
    "identity": {"type"},
    "static": {"type", "value"},
    "javascript": {"type", "expr"},
    "retry": {"constant", "exponential", "retry_if"},
    "constant": {"attempts", "seconds"},
    "exponential": {"attempts", "multiplier", "seconds", "random_factor"},
    "skip_if": {"expr"},
    "retry_if": {"expr"},
    "stop_after_if": {"expr", "skip_if_stopped", "error_message"},
}
_SCRIPTS = ("script", "rawscript")
_MODULES = (*_SCRIPTS, "forloopflow", "branchone", "identity")
_TRANSFORMS = ("static", "javascript")
_INPUT = "input_transforms."
_OTHER_INPUTS = ("iterator", "parallelism")

# An iteration over one script that has any of these is a sub-flow all the same.
_OF_A_SUB_FLOW = {"retry", "skip_if", "stop_after_if"}

# An expression that has such a line is not evaluated: the line's value is looked up, and what is missing is null.
_LOOKED_UP = re.compile(r"^results\??\.([a-zA-Z_0-9]+)(?:\[(\d+)\])?((?:\.[a-zA-Z_0-9]+)+)?$", re.MULTILINE)
_LOOKED_UP_INPUT = re.compile(r'flow_input(?:\.(.+)|\["(.+)"\])', re.DOTALL)

_NOT_LOOKED_UP = object()
_EMPTY_BRANCH = object()  # stands for the result of a branch without steps, which none can fetch


@dataclasses.dataclass(frozen=True)
class JobRun:
    """One job of a flow.

    `step` is the id in flow.yaml, `attempt` counts from 1, `args` are as Windmill stores them: references to resources
    and variables are not resolved yet. Args that can't be computed fail the job before its script starts.
    """

    step: str
    attempt: int
    script: Script
    args: dict[str, Any]
    job: worker.Job


@dataclasses.dataclass(frozen=True)
class FlowRun:
    """What became of a flow: `jobs` in the order in which they started, `waits` in seconds, before the retries.

    A failed flow's `result` is what the failure module returned, the list of a failed loop, or `{"error": {...}}`.
    """

    ok: bool
    result: Any
    jobs: tuple[JobRun, ...]
    waits: list[float]


@dataclasses.dataclass(frozen=True)
class Step:
    """One module of a flow, for checks without a run.

    `script` is a Windmill path, or for a rawscript the name of its file. `expressions` are all that the module itself
    has: where -> JavaScript. `scope` are the ids of the steps that certainly ran before, in the flow or around it.
    """

    id: str
    type: str
    script: str | None
    input_transforms: Mapping[str, Mapping[str, Any]]
    expressions: Mapping[str, str]
    scope: frozenset[str]
    in_loop: bool


def steps(flow: Mapping[str, Any]) -> Iterator[Step]:
    """Every module of a flow in the order of execution, a loop or branch before what is in it, the failure module last.

    The failure module has all other steps of the flow itself in scope, though not all of them need have run.
    """
    _check("flow", flow)
    _check("value", flow["value"])
    modules = flow["value"]["modules"]
    seen: set[str] = set()
    for step in _steps(modules, frozenset(), in_loop=False):
        if step.id in seen:
            raise ValueError(f"two steps have the id {step.id}")
        seen.add(step.id)
        yield step
    if failure := flow["value"].get("failure_module"):
        _check("failure_module", failure)
        if failure["value"]["type"] not in _SCRIPTS:
            raise NotImplementedError(f"a failure_module of type {failure['value']['type']}")
        yield _checked(failure, frozenset(module["id"] for module in modules), in_loop=False)


def referenced_results(expr: str) -> set[str]:
    """The ids of the steps whose results an expression reads, from its syntax tree."""
    return set(_node().ask("referenced", expr=expr))


def run(
    flow: Mapping[str, Any],
    flow_input: Mapping[str, Any],
    run_job: RunJob,
    *,
    folder: pathlib.Path,
    resolve: Callable[[Any], Any] | None = None,
    old_worker: bool = False,
) -> FlowRun:
    """Run a flow, the parsed flow.yaml of `folder`, and wait for none of its retries.

    `resolve` gets each argument and gives what the script gets, for what Windmill does with `$res:` and `$var:`.
    `old_worker` is one of before August 2025: it may run the failure module once more for a failed parallel loop, at
    the loop and with the list of results as `previous_result`; and `error` is only ever `previous_result.error`.
    """
    for step in steps(flow):
        for where, expr in step.expressions.items():
            try:
                _check_expression(expr, not where.startswith((_INPUT, *_OTHER_INPUTS)))
            except NotImplementedError as error:
                raise NotImplementedError(f"{step.id}, {where}: {error}") from None
    running = _Run(flow["value"].get("failure_module"), run_job, folder, resolve, old_worker)
    job = str(uuid.uuid4())
    level = _Level(json.loads(json.dumps(flow_input)), {}, _flow_path(folder), "failure", job, job)
    outcome = running.flow(flow["value"]["modules"], level)
    return FlowRun(outcome.ok, outcome.result, running.jobs, running.waits)


def run_in_process(script: Script, args: dict[str, Any], env: dict[str, str]) -> worker.Job:
    """Run a job in this process, one at a time, by the rules of the worker's wrapper; only streams are left out.

    A script is imported as a module of this repository, so that a test can put something in the place of what it
    uses; a file is imported anew each time. Of the environment, a job's own variables take the place of this process'.
    """
    with _ONE_AT_A_TIME, contextlib.ExitStack() as cleanup:
        logs = io.StringIO()
        cleanup.enter_context(contextlib.redirect_stdout(logs))
        cleanup.enter_context(contextlib.redirect_stderr(logs))
        own = dict.fromkeys(worker.VARIABLES, "") | {"WM_JOB_ID": str(uuid.uuid4())} | env
        cleanup.enter_context(unittest.mock.patch.dict(os.environ, own))
        started = time.perf_counter()
        ok, value = _called(script, json.dumps(args), own["WM_FLOW_STEP_ID"], logs)
        seconds = time.perf_counter() - started
        return worker.Job(ok, value if ok else None, None if ok else value, logs.getvalue(), int(not ok), seconds)


def run_as_worker(workspace: worker.Workspace | None = None) -> RunJob:
    """Run each job in a process of its own, with shared scripts from `workspace`."""

    def run_job(script: Script, args: dict[str, Any], env: dict[str, str]) -> worker.Job:
        return worker.run(script, args, workspace=workspace, env=env)

    return run_job


_ONE_AT_A_TIME = threading.Lock()  # standard output and the environment are the whole process'
_MODULE_OF_A_FILE = f"{__package__}.script_of_a_flow"


def _called(script: Script, args: str, step: str, logs: io.StringIO) -> tuple[bool, Any]:
    """Import a script and call it: its success, and its result or error."""
    try:
        wrapper = _wrapper(script)
    except (Exception, SystemExit):
        traceback.print_exc()
        return False, worker.execution_error(1, logs.getvalue())
    try:
        text = wrapper["encoded"](wrapper["inner_script"].main(**wrapper["arguments"](json.loads(args, strict=False))))
        ok = True
    except (Exception, SystemExit) as error:
        told = wrapper["described"](error)
        told |= {"extra": error.__dict__} if error.__dict__ else {}
        told |= {"step_id": step} if step else {}
        text = json.dumps(told, default=str)
        ok = False
    try:
        return ok, json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False, worker.execution_error(1, logs.getvalue())


def _wrapper(script: Script) -> dict[str, Any]:
    """The names of the worker's own wrapper, with the script imported."""
    path = script.replace("/", ".") if isinstance(script, str) else _MODULE_OF_A_FILE
    package, _, name = path.rpartition(".")
    source = script if isinstance(script, pathlib.Path) else worker.ROOT / f"{script}.py"
    parameters = worker.parameters(source.read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    with contextlib.ExitStack() as cleanup:
        if isinstance(script, pathlib.Path):
            spec = importlib.util.spec_from_file_location(path, script)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[path] = importlib.util.module_from_spec(spec)
            cleanup.callback(sys.modules.pop, path)
            spec.loader.exec_module(sys.modules[path])
        text = worker.WRAPPER.format(loader="", package=package, name=name, parameters=parameters, loop="")
        exec(text, names)  # noqa: S102 - the worker's own text
    return names


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class _Thrown(Exception):
    """An expression that threw, or gave what can't be used."""


class _Node:
    """A Node process that evaluates expressions, each in a realm of its own; it ends with its standard input."""

    def __init__(self) -> None:
        command = [shutil.which("node") or "node", str(EVALUATOR)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        atexit.register(self._process.communicate)

    def ask(self, task: str, **request: Any) -> Any:
        """What flow_eval.mjs answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps({"task": task, **request}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Node ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "unsupported" in answer:
            raise NotImplementedError(answer["unsupported"])
        if "error" in answer:
            raise _Thrown(f"Error during evaluation of expression `{request['expr']}`:\n{answer['error']}")
        return answer["value"]


@functools.cache
def _node() -> _Node:
    """The one process for all flows: starting it takes longer than most of them."""
    return _Node()


@functools.cache
def _check_expression(expr: str, predicate: bool) -> None:
    """Refuse what is not re-created; each expression is looked at once, however often it runs."""
    _node().ask("check", expr=expr, predicate=predicate)


@dataclasses.dataclass(frozen=True)
class _Scope:
    """What an expression sees. `results` are None where Windmill offers none."""

    names: Mapping[str, Any]
    results: Mapping[str, Any] | None = None

    def also(self, **names: Any) -> "_Scope":
        return _Scope({**self.names, **names}, self.results)


def _looked_up(expr: str, scope: _Scope) -> Any:
    """The value of a plain path, which Windmill looks up without JavaScript, so that no number is rounded."""
    if expr in scope.names:
        return scope.names[expr]
    given = _LOOKED_UP_INPUT.fullmatch(expr)
    if given and (given[1] or given[2]) in scope.names["flow_input"]:
        return scope.names["flow_input"][given[1] or given[2]]
    found = _LOOKED_UP.search(expr)
    if not found:
        return _NOT_LOOKED_UP
    value = (scope.results or {}).get(found[1])
    for key in filter(None, [found[2], *(found[3] or "").split(".")]):
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return None if value is _EMPTY_BRANCH else value


@dataclasses.dataclass(frozen=True)
class _Level:
    """The flow, or the sub-flow that one iteration or one branch is: its input, what it sees, and its names."""

    args: Mapping[str, Any]
    results: MutableMapping[str, Any]
    path: str
    failure_id: str
    job: str
    root: str

    def inside(self, place: str, suffix: str, args: Mapping[str, Any], *, apart: bool = False) -> "_Level":
        """A sub-flow; `apart` is one of many at a time, whose results the flow around it does not see."""
        job = str(uuid.uuid4())
        return _Level(
            args=args,
            results=collections.ChainMap({}, self.results) if apart else self.results,
            path=f"{self.path}/{place}",
            failure_id=f"{self.failure_id}-{suffix}",
            job=job,
            root=job if apart else self.root,
        )

    def scope(self, previous: Any, previous_id: str = "") -> _Scope:
        """What the inputs of a step see; right after a step, `results` has what is handed on."""
        results = {**self.results, **({previous_id: previous} if previous_id else {})}
        return _Scope({"flow_input": self.args, "previous_result": previous}, results)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What became of a module or sub-flow.

    `handled`: the failure module has run. `stopped`: by stop_after_if. `empty`: a branch without steps.
    """

    ok: bool
    result: Any
    handled: bool = False
    stopped: bool = False
    empty: bool = False


class _Run:
    """One run of a flow."""

    def __init__(
        self,
        failure: Module | None,
        run_job: RunJob,
        folder: pathlib.Path,
        resolve: Callable[[Any], Any] | None,
        old_worker: bool,
    ) -> None:
        self._jobs: dict[int, JobRun] = {}
        self.waits: list[float] = []
        self._failure = failure
        self._run_job = run_job
        self._folder = folder
        self._resolve = resolve or (lambda value: value)
        self._old_worker = old_worker
        self._started_at = datetime.datetime.now(datetime.UTC).isoformat()
        self._numbers = itertools.count()

    @property
    def jobs(self) -> tuple[JobRun, ...]:
        """The jobs in the order of their start."""
        return tuple(self._jobs[number] for number in sorted(self._jobs))

    def flow(self, modules: Sequence[Module], level: _Level) -> _Outcome:
        """Run a flow or sub-flow. The first step's `previous_result` is the flow's input."""
        outcome, previous_id = _Outcome(True, level.args), ""
        for index, module in enumerate(modules):
            try:
                outcome = self._module(index, module, level, level.scope(outcome.result, previous_id))
            except _Thrown as thrown:
                # What decides about steps is evaluated outside of any job: there, not even the failure module runs.
                return _Outcome(False, {"error": {"name": "InternalError", "message": str(thrown)}})
            may_fail = module.get("continue_on_error", False) and not outcome.stopped
            if outcome.ok and outcome.stopped:
                break
            if not (outcome.ok or may_fail):
                return self._handled(module, outcome, level)
            previous_id = module["id"]
        # A last step that may fail still fails the flow, but the failure module doesn't run for it.
        return dataclasses.replace(outcome, empty=False)

    def _handled(self, module: Module, outcome: _Outcome, level: _Level) -> _Outcome:
        """Run the failure module, if it has not run for this failure.

        https://www.windmill.dev/docs/flows/error_handling
        """
        if outcome.handled or self._failure is None:
            return outcome
        names = {"started_at": self._started_at, "flow_job_id": level.job}
        scope = level.scope(outcome.result, module["id"]).also(**names)
        handled = self._step(self._failure, level, scope, step_id=level.failure_id)
        if handled.ok and isinstance(handled.result, dict) and handled.result.get("recover") is True:
            raise NotImplementedError("a failure module that recovers the flow")
        return _Outcome(False, handled.result, handled=True)

    def _module(self, index: int, module: Module, level: _Level, scope: _Scope) -> _Outcome:
        """Run one module, and note its result."""
        previous = scope.names["previous_result"]
        deciding = scope.also(result=previous)
        kind = module["value"]["type"]
        if kind == "identity" or ("skip_if" in module and self._is(module["skip_if"], deciding)):
            outcome = _Outcome(True, previous)
        elif kind == "forloopflow":
            outcome = self._loop(index, module, level, deciding)
        elif kind == "branchone":
            outcome = self._branch(index, module, level, deciding)
        else:
            outcome = self._step(module, level, scope)
        level.results[module["id"]] = _EMPTY_BRANCH if outcome.empty else outcome.result
        return self._stopped(module, outcome, level)

    def _stopped(self, module: Module, outcome: _Outcome, level: _Level) -> _Outcome:
        """What a module comes to by its stop_after_if: https://www.windmill.dev/docs/flows/early_stop."""
        stop = module.get("stop_after_if")
        if not (outcome.ok and stop and self._is(stop, level.scope(outcome.result).also(result=outcome.result))):
            return outcome
        message = stop.get("error_message")
        if message is None:
            return _Outcome(True, outcome.result, stopped=True)
        told = message or f"stop after if: {stop['expr']}"
        return _Outcome(False, {"error": {"name": "EarlyStopError", "message": told}}, stopped=True)

    def _step(self, module: Module, level: _Level, scope: _Scope, step_id: str | None = None) -> _Outcome:
        """Run a script until it succeeds or is not to be retried, with the same arguments each time."""
        step_id = step_id or module["id"]
        script, path = self._script(module["value"], level, step_id)
        env = {
            "WM_FLOW_STEP_ID": step_id,
            "WM_FLOW_JOB_ID": level.job,
            "WM_ROOT_FLOW_JOB_ID": level.root,
            "WM_FLOW_PATH": level.path,
            "WM_JOB_PATH": path,
        }
        args: dict[str, Any] = {}
        refused = None
        try:
            transforms = module["value"].get("input_transforms", {})
            args = {name: self._value(transform, scope) for name, transform in transforms.items()}
        except _Thrown as thrown:
            # The job is there, without arguments; a retry would run it so.
            refused = worker.Job(False, None, _execution_error(thrown, step_id), "", None, 0)
        attempt = 1
        while True:
            number = next(self._numbers)
            given = {name: self._resolve(copy.deepcopy(value)) for name, value in args.items()}
            job = refused or self._run_job(script, given, env)
            self._jobs[number] = JobRun(module["id"], attempt, script, args, job)
            if job.ok:
                return _Outcome(True, job.result)
            failed = {"error": job.error}
            wait = self._wait(module.get("retry", {}), attempt - 1, failed, level)
            if wait is None:
                return _Outcome(False, failed)
            self.waits.append(wait)
            refused = None
            attempt += 1

    def _wait(self, retry: Module, retries: int, failed: dict[str, Any], level: _Level) -> float | None:
        """The seconds until the next attempt, without jitter; None when there is none.

        https://www.windmill.dev/docs/flows/retries: the constant ones come first. The exponent counts them too.
        """
        scope = _Scope({"flow_input": level.args, "previous_result": failed, "result": failed})
        if "retry_if" in retry and not self._is(retry["retry_if"], scope):
            return None
        constant, exponential = retry.get("constant", {}), retry.get("exponential", {})
        first: int = constant.get("attempts", 0)
        seconds: float
        if retries < first:
            seconds = constant.get("seconds", 0)
        elif retries - first < exponential.get("attempts", 0):
            seconds = exponential.get("multiplier", 1) * exponential.get("seconds", 0) ** (retries + 1)
        else:
            return None
        return min(seconds, LONGEST_WAIT_SECONDS)

    def _loop(self, index: int, module: Module, level: _Level, scope: _Scope) -> _Outcome:
        """Run a for-loop, whose result is the list of its iterations': https://www.windmill.dev/docs/flows/flow_loops.

        An iteration is a sub-flow that has the failure module too. So what failed in there is handled there: its
        output is the iteration's result, and the failure module doesn't run again at the loop.
        """
        value = module["value"]
        items = self._value(value["iterator"], scope)
        if not isinstance(items, list):
            raise _Thrown(f"Expected an array value in the iterator expression, found: {json.dumps(items)}")
        modules, parallel, skip = value["modules"], value.get("parallel", False), value.get("skip_failures", False)
        if not items or not modules:
            return _Outcome(True, [])
        # Without a failure module, Windmill runs a loop over one plain script without sub-flows.
        plain = not parallel and self._failure is None and _is_plain(modules)

        def iteration(number: int, previous: Any = None) -> _Outcome:
            args = _with_iter(level.args, number, items[number])
            if plain:
                own = dataclasses.replace(level, args=args)
                return self._step(modules[0], own, own.scope(previous), step_id=module["id"])
            place = f"{'forloop' if parallel else 'loop'}-{number}"
            return self.flow(modules, level.inside(place, f"{index}-{number}", args, apart=parallel))

        outcomes: list[_Outcome] = []
        if parallel:
            most = value.get("parallelism", len(items))
            with ThreadPoolExecutor(self._value(most, scope) if isinstance(most, Mapping) else most) as pool:
                outcomes.extend(pool.map(iteration, range(len(items))))
            handled = self._failure is not None and not self._old_worker
        else:
            previous = scope.names["previous_result"]
            for number in range(len(items)):
                outcomes.append(iteration(number, previous))
                previous, handled = outcomes[-1].result, outcomes[-1].handled
                if outcomes[-1].stopped or not (outcomes[-1].ok or skip):
                    break
        ok = skip or all(outcome.ok for outcome in outcomes)
        return _Outcome(ok, [outcome.result for outcome in outcomes], handled)

    def _branch(self, index: int, module: Module, level: _Level, scope: _Scope) -> _Outcome:
        """Run the first branch whose expression is true: https://www.windmill.dev/docs/flows/flow_branches."""
        value = module["value"]
        try:
            chosen = next((i for i, branch in enumerate(value["branches"], 1) if self._is(branch, scope)), 0)
        except _Thrown as thrown:
            return _Outcome(False, {"error": _execution_error(thrown, module["id"])})
        modules = value["branches"][chosen - 1]["modules"] if chosen else value["default"]
        if not modules:
            return _Outcome(True, scope.names["previous_result"], empty=True)
        return self.flow(modules, level.inside(f"branchone-{chosen}", str(index), level.args))

    def _value(self, transform: Mapping[str, Any], scope: _Scope) -> Any:
        """What an input is: https://www.windmill.dev/docs/openflow#input-transform."""
        if transform["type"] == "static":
            return transform.get("value")
        found = _looked_up(transform["expr"].strip(), scope)
        return self._evaluated(transform["expr"], scope) if found is _NOT_LOOKED_UP else found

    def _is(self, condition: Mapping[str, Any], scope: _Scope) -> bool:
        """Whether what has an `expr` applies."""
        return bool(self._evaluated(condition["expr"], scope, predicate=True))

    def _evaluated(self, expr: str, scope: _Scope, *, predicate: bool = False) -> Any:
        results = scope.results
        empty = [id_ for id_, result in (results or {}).items() if result is _EMPTY_BRANCH]
        return _node().ask(
            "evaluate",
            expr=expr,
            predicate=predicate,
            names=dict(scope.names),
            results=None if results is None else {id_: results[id_] for id_ in results if id_ not in empty},
            empty=empty,
            old=self._old_worker,
        )

    def _script(self, value: Mapping[str, Any], level: _Level, step_id: str) -> tuple[Script, str]:
        """What to run, and the path under which it runs."""
        if value["type"] == "script":
            return value["path"], value["path"]
        return self._folder / value["content"].removeprefix(INLINE), f"{level.path}/{step_id}"


def _execution_error(thrown: _Thrown, step_id: str) -> dict[str, Any]:
    return {"name": "ExecutionErr", "message": f"execution error:\n{thrown}", "step_id": step_id}


def _with_iter(args: Mapping[str, Any], index: int, value: Any) -> dict[str, Any]:
    """The input of an iteration; in a loop within a loop, the outer one's `iter` becomes `iter_parent`."""
    inner, key, moved = dict(args), "iter", {"index": index, "value": value}
    while key in inner:
        inner[key], moved = moved, inner[key]
        key += "_parent"
    return {**inner, key: moved}


def _is_plain(modules: Sequence[Module]) -> bool:
    first = modules[0]
    return len(modules) == 1 and first["value"]["type"] in _SCRIPTS and not first.keys() & _OF_A_SUB_FLOW


def _flow_path(folder: pathlib.Path) -> str:
    """The Windmill path of a flow's folder, `.../f/kustomer/x__flow`; one outside of `f` and `u` is a test's own."""
    *parents, name = folder.parts
    name = name.removesuffix("__flow").removesuffix(".flow")
    top = max((i for i, part in enumerate(parents) if part in ("f", "u")), default=None)
    return f"u/test/{name}" if top is None else "/".join([*parents[top:], name])


def _steps(modules: Sequence[Module], scope: frozenset[str], *, in_loop: bool) -> Iterator[Step]:
    for module in modules:
        _check("module", module)
        yield _checked(module, scope, in_loop=in_loop)
        value = module["value"]
        if value["type"] == "forloopflow":
            yield from _steps(value["modules"], scope, in_loop=True)
        if value["type"] == "branchone":
            for inner in (*(branch["modules"] for branch in value["branches"]), value["default"]):
                yield from _steps(inner, scope, in_loop=in_loop)
        scope |= {module["id"]}


def _checked(module: Module, scope: frozenset[str], *, in_loop: bool) -> Step:
    """A module as a step; NotImplementedError where it uses what is not re-created."""
    value = module["value"]
    kind = value["type"]
    if kind not in _MODULES:
        raise NotImplementedError(f"{module['id']}: a module of type {kind}")
    _check(kind, value)
    inputs = {f"{_INPUT}{name}": transform for name, transform in value.get("input_transforms", {}).items()}
    inputs |= {key: value[key] for key in _OTHER_INPUTS if isinstance(value.get(key), Mapping)}
    for transform in inputs.values():
        if transform["type"] not in _TRANSFORMS:
            raise NotImplementedError(f"{module['id']}: an input of type {transform['type']}")
        _check(transform["type"], transform)
    conditions = {key: module[key] for key in ("skip_if", "stop_after_if") if key in module}
    retry = module.get("retry", {})
    conditions |= {"retry_if": retry["retry_if"]} if "retry_if" in retry else {}
    for key, given in {"retry": retry, **conditions, **retry}.items():
        _check(key, given)
    for number, branch in enumerate(value.get("branches", [])):
        _check("branch", branch)
        conditions[f"branches.{number}"] = branch
    _check_use(module)
    expressions = {key: given["expr"] for key, given in inputs.items() if given["type"] == "javascript"}
    return Step(
        id=module["id"],
        type=kind,
        script=value["path"] if kind == "script" else value.get("content", "").removeprefix(INLINE) or None,
        input_transforms=value.get("input_transforms", {}),
        expressions=expressions | {key: given["expr"] for key, given in conditions.items()},
        scope=scope,
        in_loop=in_loop,
    )


def _check_use(module: Module) -> None:
    """Refuse what is known by name, but not in this place or way."""
    value = module["value"]
    stop = module.get("stop_after_if", {})
    refused = {
        "retry of anything but a script": "retry" in module and value["type"] not in _SCRIPTS,
        "stop_after_if of a loop": stop and value["type"] == "forloopflow",
        "skip_if_stopped with an error_message": stop.get("skip_if_stopped") and stop.get("error_message") is not None,
        "a language other than python3": value.get("language", "python3") != "python3",
        "content that is not in a file": not value.get("content", INLINE).startswith(INLINE),
    }
    for what, is_so in refused.items():
        if is_so:
            raise NotImplementedError(f"{module['id']}: {what}")


def _check(kind: str, given: Mapping[str, Any]) -> None:
    if unknown := given.keys() - _KNOWN[kind]:
        raise NotImplementedError(f"{kind} with {', '.join(sorted(unknown))}")
