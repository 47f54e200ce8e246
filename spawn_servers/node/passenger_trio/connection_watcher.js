'use strict';

// The connection watcher: the thread that holds the control connection. The end of the connection ends the process.
//
// It passes messages to the main thread and writes the main thread's lines. It knows the meaning of one: "backtrace" is
// answered here, because the main thread may hang.
//
// Laws:
//
// * The end of the supervisor is seen while the application computes, because this thread has an event loop of its own.
// * The main thread is told first, and runs the exit hooks. EXIT_TIMEOUT later the process is killed. Node cannot interrupt
//   what computes: then there are no exit hooks.

const net = require('net');
const { parentPort, workerData } = require('worker_threads');

const MAX_TEXT = 30000; // characters of a backtrace: a line has at most 65536 bytes
const EXIT_TIMEOUT = 700; // milliseconds from the supervisor's end to ours; the contract allows 1000
const EVERYTHING = 1 << 30; // lines

const written = new Int32Array(workerData.written);
let partialLine = '';
let ending = false;

function onEnd() {
  if (ending) return;
  ending = true;
  parentPort.postMessage({ type: 'gone' });
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), EXIT_TIMEOUT);
  countWritten(EVERYTHING); // Nobody reads any more, so flush() must not wait.
}

function countWritten(lines) {
  Atomics.add(written, 0, lines);
  Atomics.notify(written, 0);
}

// The main thread may hang, so it is not asked.
function answerBacktrace(message) {
  require('./backtraces.js').backtrace((text) => {
    const answer = { type: 'backtrace', id: message.id, text: text.slice(-MAX_TEXT).replace(/[^\x20-\x7e\n]/g, '?') };
    connection.write(JSON.stringify(answer) + '\n');
  });
}

const connection = net.connect(workerData.path);
connection.setEncoding('utf8');
connection.on('data', (text) => {
  const lines = (partialLine + text).split('\n');
  partialLine = lines.pop();
  for (const line of lines) {
    let message;
    try {
      message = JSON.parse(line);
    } catch (error) {
      onEnd(); // Whoever sent this is no supervisor.
      return;
    }
    if (message.type === 'backtrace') answerBacktrace(message);
    else parentPort.postMessage(message);
  }
});
connection.on('error', onEnd);
connection.on('close', onEnd);
parentPort.on('message', (line) => connection.write(line, () => countWritten(1)));
