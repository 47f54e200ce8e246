'use strict';

// Advice for a person: makes the members of an "error" message from an exception, or from a step that the application left out.
//
// Knows Node's errors and common mistakes. Changes nothing.
//
// Law: each report names what failed, on which input, and what to do.

const path = require('path');

const LOADER_FILES = path.dirname(__dirname) + path.sep;

// The application cannot be started, and we know better than a backtrace why.
class StartupError extends Error {}

const RESTART_NOTE = 'It is started again with the next request, or when it is restarted.';

function report(category, summary, problem, solution, traceback) {
  const details = `Node.js ${process.version} (${process.execPath})`;
  return { category, summary: summary.slice(0, 4096), problem, solution, traceback, details };
}

// An exception that was thrown while the application was loaded.
function explain(error) {
  if (error instanceof StartupError) {
    return report('configuration', error.message, 'The startup file of the application does not exist.', 'Name another file with --startup-file.', '');
  }
  const trace = backtraceOf(error);
  const text = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : typeof error;
  const code = error && error.code;
  const missing = /Cannot find (?:module|package) '([^']+)'/.exec(text);
  if ((code === 'MODULE_NOT_FOUND' || code === 'ERR_MODULE_NOT_FOUND') && missing) {
    const module = missing[1];
    const own = module.startsWith('.') || module.startsWith('/');
    const solution = own ? 'Check the path. In an ES module it needs its extension.' : `Install what the application needs, in its directory: npm install (or: npm install ${module})`;
    return report('application', `The application needs ${module}, which cannot be found`, text, solution, trace);
  }
  if (name === 'SyntaxError') {
    let solution = `Fix the line. ${RESTART_NOTE}`;
    if (/import statement outside a module|Unexpected token 'export'/.test(text)) {
      solution = 'The file is an ES module: write "type": "module" into package.json, or rename the file to .mjs.';
    }
    return report('application', `The application has a syntax error: ${text.split('\n')[0]}`, `Node.js ${process.version} cannot read the file.`, solution, trace);
  }
  if (code === 'EADDRINUSE' || code === 'EACCES') {
    const solution = 'Only the first HTTP server is redirected. Any other listens where it says, which one process can do at a time.';
    return report('application', `The application cannot listen: ${text}`, 'The application listens on more than one address.', solution, trace);
  }
  return report('application', `The application threw ${name}: ${text}`, 'The error was thrown while the application was loaded. The traceback is below.', `Fix the application. ${RESTART_NOTE}`, trace);
}

// Workers of the module cluster listen.
function explainCluster(port) {
  return report(
    'application',
    'The application listens in worker processes of its own (module cluster)',
    `A worker process listens on port ${port}. No request is sent there.`,
    'Listen in the process that is started, without cluster. passenger_trio starts as many processes as are wanted (--min-instances, --max-pool-size).',
    '',
  );
}

// The application ended the process.
function explainExit(code) {
  return report(
    'application',
    `The application ended the process before it listened: process.exit(${code || ''})`,
    'The application did not call listen() before that.',
    'Look at its output. An application must stay and listen.',
    '',
  );
}

// The application has nothing left to do, and does not listen.
function explainSilence(exported) {
  const isApplication = typeof exported === 'function';
  return report(
    'application',
    'The application was loaded and does not listen',
    isApplication
      ? 'It exports a function, like an Express application that another file starts. Nothing calls listen(), and there is nothing left to do.'
      : 'None of its HTTP servers calls listen(), and there is nothing left to do.',
    isApplication ? 'Name the file that starts it, for example --startup-file bin/www, or call listen() in this file.' : 'Call listen() on an http.Server (not https: TLS ends before the application), or name the file that does so with --startup-file.',
    '',
  );
}

// A hint for the case that no HTTP server ever listens: what did listen. Undefined for a plain TCP server.
function hintAt(server, port) {
  const kind = { Http2Server: 'HTTP/2', Http2SecureServer: 'HTTP/2 with TLS', Server: 'TLS' }[server.constructor.name];
  if (!kind || (kind === 'TLS' && !(server instanceof require('tls').Server))) return undefined;
  const where = port === undefined ? '' : ` on port ${port}`;
  const call = { 'HTTP/2': 'http2.createServer()', 'HTTP/2 with TLS': 'http2.createSecureServer()', TLS: 'https.createServer()' }[kind];
  return {
    problem: `A server for ${kind} listens${where}, and none for HTTP/1.1. passenger_trio speaks HTTP/1.1 with applications: HTTP/2 and TLS end before them.`,
    solution: `Replace ${call} by http.createServer(), with the same handler.`,
  };
}

function backtraceOf(error) {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack || String(error);
  const lines = own.split('\n').filter((line) => !line.includes(LOADER_FILES) && !/^\s+at .*\(?node:internal/.test(line));
  return lines.join('\n') + (error.cause === undefined ? '' : `\nCaused by: ${backtraceOf(error.cause)}`);
}

module.exports = { StartupError, backtraceOf, explain, explainCluster, explainExit, explainSilence, hintAt };
