// Evaluates the expressions of a flow for flow.py: one JSON object per line in, one per line out.
//
// An answer has a `value`; or an `error`, when the expression threw; or `unsupported`, with what it uses that is
// not re-created here or that Windmill itself takes in an unexpected way.
// https://www.windmill.dev/docs/openflow#input-transform
import { createInterface } from 'node:readline';
import vm from 'node:vm';
import { parse } from 'acorn';

// Windmill's own engine, QuickJS, knows ES2023, and none of these.
const ES = { ecmaVersion: 2023 };
const MISSING = ['console', 'Intl', 'WebAssembly', 'SharedArrayBuffer', 'Atomics'];

// Results are fetched when they are asked for: an access that looks like this, wherever it stands in the text,
// is awaited. So none works inside a function of the expression's own, unless that is async.
const RESULT = /results\??(?:\.[a-zA-Z_0-9]+|\[".*?"\])/g;

// What starts like this is taken for statements, which would have to return the value themselves.
const STATEMENT = /^(?:(?:const|let|var|throw|function|class|async|await) |(?:if|for|while|switch)[ (]|try[ {])/;

const MILLISECONDS = 10_000;

// Names that Windmill has in scope and this stand-in has not.
const UNKNOWN = new Set(['params', 'resume', 'resumes', 'approvers', 'all_iters', 'flow_env', 'variable', 'resource']);

// Runs inside the expression's own realm, so that not even the given values lead out of it.
const PRELUDE = new vm.Script(`{
  const { names, error, results, empty } = JSON.parse(given);
  for (const name of ['given', ...${JSON.stringify(MISSING)}]) delete globalThis[name];
  Object.assign(globalThis, names);
  if (error) globalThis.error = error.value;
  const get = async (_, name) => {
    if (empty.includes(name)) throw new Error("Failed to fetch result for step '" + name + "'");
    return Object.hasOwn(results, name) ? results[name] : null;
  };
  if (results) globalThis.results = new Proxy({}, { get });
}`);

class Unsupported extends Error {}

const text = ({ expr, predicate }) =>
  (predicate ? `Boolean(${expr})` : expr.trim()).replace(RESULT, '(await $&)');

// On one line, as a comment at the end would otherwise be harmless here and not there.
const code = (text) => `(async function () { return ${text} })()`;

// Every node below this one, but for names that only name a property.
function* nodes(node) {
  if (Array.isArray(node)) for (const each of node) yield* nodes(each);
  if (typeof node?.type !== 'string') return;
  yield node;
  for (const [key, child] of Object.entries(node)) {
    if (node.computed || (key !== 'property' && key !== 'key')) yield* nodes(child);
  }
}

const isResults = (node) => node.type === 'Identifier' && node.name === 'results';
const isResult = (node) => node.type === 'MemberExpression' && isResults(node.object);
const isAwaited = ({ type, argument }) => type === 'AwaitExpression' && isResult(argument.expression ?? argument);
const count = (all, matches) => all.filter(matches).length;

function check(request) {
  const whole = text(request);
  if (whole.includes('return ') || STATEMENT.test(whole)) throw new Unsupported('statements');
  const tokens = [];
  let tree;
  try {
    tree = parse(code(whole), { ...ES, onToken: tokens });
  } catch {
    return null; // the evaluation tells
  }
  const { body } = tree.body[0].expression.callee.body;
  if (body.length > 1 || !body[0].argument) throw new Unsupported('what is not one expression, or begins with a comment');
  const strings = tokens.filter(({ type }) => ['string', 'template'].includes(type.label));
  const rest = strings.reduceRight((rest, { start, end }) => rest.slice(0, start) + rest.slice(end), code(whole));
  if (rest.includes(';')) throw new Unsupported('a semicolon, even in a function or a comment');
  const all = [...nodes(tree)];
  const unknown = all.find((node) => node.type === 'Identifier' && UNKNOWN.has(node.name));
  if (unknown) throw new Unsupported(unknown.name);
  if (count(all, isAwaited) < count(all, isResults)) throw new Unsupported('results other than as results.<id> or results?.<id>');
  return null;
}

// What Windmill makes of a result that tells no error, since late 2025.
function errorOf(result, old) {
  const error = result?.error;
  if (error || old) return error;
  if (!Array.isArray(result)) {
    if (!result) return { name: 'UnknownError', message: 'No error found' };
    return { name: 'UnknownError', message: 'Could not parse the error', error: result };
  }
  const failed = result.filter((each) => each && typeof each === 'object' && 'error' in each);
  if (failed.length === 1) return failed[0].error;
  const told = failed.map(({ error }, i) => `[${error.step_id || i}] ${error.message || error.name}`).join('; ');
  return { name: 'MultipleErrors', message: told || 'Could not parse errors', errors: result };
}

async function evaluate(request) {
  const { names, results, empty, old } = request;
  const error = request.expr.includes('error') ? { value: errorOf(names.previous_result, old) } : null;
  const given = JSON.stringify({ names, error, results, empty });
  const context = vm.createContext(Object.assign(Object.create(null), { given }));
  PRELUDE.runInContext(context);
  const script = new vm.Script(`${code(text(request))}.then((value) => JSON.stringify(value))`);
  return JSON.parse((await script.runInContext(context, { timeout: MILLISECONDS })) ?? 'null');
}

function referenced({ expr }) {
  const all = [...nodes(parse(`(async () => (${expr}\n))`, ES))];
  const ids = all.filter(isResult).map(({ computed, property }) => (computed ? property.value : property.name));
  if (ids.length < count(all, isResults) || !ids.every((id) => typeof id === 'string')) {
    throw new Unsupported('results without the name of a step');
  }
  return [...new Set(ids)];
}

const TASKS = { check, evaluate, referenced };

process.on('unhandledRejection', () => {}); // of an access that nothing awaits

for await (const line of createInterface({ input: process.stdin })) {
  const { task, ...request } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await TASKS[task](request) };
  } catch (error) {
    answer = error instanceof Unsupported ? { unsupported: error.message } : { error: String(error) };
  }
  console.log(JSON.stringify(answer));
}
