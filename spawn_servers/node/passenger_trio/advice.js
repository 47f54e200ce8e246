'use strict';

// What a person is told.

const path = require('path');

const OWN_FILES = path.dirname(__dirname) + path.sep;

class Unfit extends Error {}

const AGAIN = 'It is started again with the next request, or when it is restarted.';

function report(category, summary, problem, solution, traceback) {
  const details = `Node.js ${process.version} (${process.execPath})`;
  return { category, summary: summary.slice(0, 4096), problem, solution, traceback, details };
}

function explain(error) {
  if (error instanceof Unfit) {
    return report('configuration', error.message, 'What was to be loaded is not there.', 'Name another file with --startup-file.', '');
  }
  const trace = traceOf(error);
  const text = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : typeof error;
  const code = error && error.code;
  const missing = /Cannot find (?:module|package) '([^']+)'/.exec(text);
  if ((code === 'MODULE_NOT_FOUND' || code === 'ERR_MODULE_NOT_FOUND') && missing) {
    const module = missing[1];
    const own = module.startsWith('.') || module.startsWith('/');
    const solution = own ? 'Check the path; in an ES module it needs its extension.' : `Install what the application needs, in its directory: npm install (or: npm install ${module})`;
    return report('application', `The application needs ${module}, which cannot be found`, text, solution, trace);
  }
  if (name === 'SyntaxError') {
    let solution = `Mend the line. ${AGAIN}`;
    if (/import statement outside a module|Unexpected token 'export'/.test(text)) {
      solution = 'It is an ES module: write "type": "module" into package.json, or call the file .mjs.';
    }
    return report('application', `The application has a syntax error: ${text.split('\n')[0]}`, `Node.js ${process.version} cannot read the file.`, solution, trace);
  }
  if (code === 'EADDRINUSE' || code === 'EACCES') {
    const solution = 'The first HTTP server that listens is redirected; any other listens where it says, and can do so in one process only.';
    return report('application', `The application cannot listen: ${text}`, 'It listens on more than one address.', solution, trace);
  }
  return report('application', `The application threw ${name}: ${text}`, 'It did so while it was loaded. The traceback is below.', `Mend the application. ${AGAIN}`, trace);
}

function clustered(port) {
  return report(
    'application',
    'The application lets workers of its own listen, by the module cluster',
    `A worker listens on port ${port}, where nobody is sent.`,
    'Let it listen in the process that is started: it is started as often as processes are wanted (--min-instances, --max-pool-size).',
    '',
  );
}

function exited(code) {
  return report(
    'application',
    `The application ended the process before it listened: process.exit(${code || ''})`,
    'It did not call listen() before.',
    'Look at the output. Run under the supervisor, it has to stay and listen.',
    '',
  );
}

function neverListened(exported) {
  const isApplication = typeof exported === 'function';
  return report(
    'application',
    'The application was loaded, and does not listen',
    isApplication
      ? 'It exports a function, as an Express application does that another file starts; nothing calls listen(), and there is nothing left to do.'
      : 'No HTTP server of it calls listen(), and there is nothing left to do.',
    isApplication ? 'Name the file that starts it, such as --startup-file bin/www, or call listen() in this one.' : 'Call listen() on an http.Server (not https: TLS ends before the application), or name the file that does with --startup-file.',
    '',
  );
}

function traceOf(error) {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack || String(error);
  const lines = own.split('\n').filter((line) => !line.includes(OWN_FILES) && !/^\s+at .*\(?node:internal/.test(line));
  return lines.join('\n') + (error.cause === undefined ? '' : `\nCaused by: ${traceOf(error.cause)}`);
}

module.exports = { Unfit, clustered, exited, explain, neverListened, traceOf };
