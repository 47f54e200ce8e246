'use strict';

// What the main thread is doing, as text, for a person who asks why it hangs (CONTRACT.md 2.34).
//
// Runs in the thread of connection_watcher.js. The inspector interrupts the main thread, also while that computes, and evaluates
// EXPRESSION in it: the stack at that moment, and a diagnostic report of what it waits for. The main thread is never
// paused: Node cannot always resume it.
//
// Laws:
//
// * The environment of the process is never part of the text: a report would show secrets.
// * The text is ready within TIMEOUT. A main thread in a call that does not return (a synchronous read, say) cannot be
//   interrupted, and the text says so.

const TIMEOUT = 1500; // milliseconds
const MAX_HANDLES = 100;

const EXPRESSION = `(() => {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 100;
  const stack = String(new Error().stack);
  Error.stackTraceLimit = limit;
  const report = process.report ? process.report.getReport() : {};
  return JSON.stringify({
    stack,
    header: {
      nodejsVersion: process.version, uptime: process.uptime(), memory: process.memoryUsage(), cwd: process.cwd(),
    },
    resources: process.getActiveResourcesInfo ? process.getActiveResourcesInfo() : [],
    libuv: (report.libuv || []).filter((handle) => handle.is_active),
  });
})()`;

// Calls done(text), once.
function backtrace(done) {
  let session = null;
  let timer = null;
  const finish = (text) => {
    if (timer === null) return;
    clearTimeout(timer);
    timer = null;
    try {
      session.disconnect();
    } catch (error) {
      // It was never connected.
    }
    done(text);
  };
  timer = setTimeout(() => finish('main thread\n  is in a call that does not return: it runs no JavaScript'), TIMEOUT);
  try {
    const { Session } = require('inspector');
    session = new Session();
    session.connectToMainThread();
    session.post('Runtime.evaluate', { expression: EXPRESSION, returnByValue: true }, (error, answer) => {
      try {
        finish(error ? `main thread\n  cannot be asked: ${error.message}` : reportOf(JSON.parse(answer.result.value)));
      } catch (problem) {
        finish(`main thread\n  gave no report: ${problem.message}`);
      }
    });
  } catch (error) {
    finish(`main thread\n  cannot be inspected: ${error.message}`);
  }
}

// The main thread last, and in its stack the newest call last.
function reportOf({ stack, header, resources, libuv }) {
  const lines = ['report'];
  for (const [name, value] of Object.entries(header)) lines.push(`  ${name}: ${JSON.stringify(value)}`);
  for (const resource of resources) lines.push(`  active: ${resource}`);
  for (const handle of libuv.slice(0, MAX_HANDLES)) lines.push(`  handle: ${JSON.stringify(handle)}`);
  // Without what we evaluate ourselves.
  const frames = stack.split('\n').filter((line) => /^ {4}at /.test(line) && !/<anonymous>:\d+:\d+\)?$/.test(line));
  const shown = frames.reverse().map((line) => `  ${line.trim()}`);
  return `${lines.join('\n')}\n\nmain thread\n${shown.join('\n') || '  waits for events'}`;
}

module.exports = { backtrace };
