'use strict';

// The main thread's side of the control connection. The connection itself belongs to the thread of connection_watcher.js.
//
// Knows how messages become lines, and how many lines have been written.
//
// Laws:
//
// * No line is longer than MAX_LINE. Texts are cut at their fronts: their ends say what happened.
// * flush() blocks the main thread, FLUSH_TIMEOUT at most: at exit the event loop runs no more.

const { Worker } = require('worker_threads');

const MAX_LINE = 65536; // bytes
const FLUSH_TIMEOUT = 2000; // milliseconds

class ControlConnection {
  constructor(path, onMessage) {
    const written = new SharedArrayBuffer(4);
    this.written = new Int32Array(written); // lines written by the thread
    this.sent = 0; // lines given to the thread
    // The application's NODE_OPTIONS are not for this thread: they would load the application's modules a second time.
    const options = { workerData: { path, written }, env: {}, execArgv: [] };
    this.thread = new Worker(require.resolve('./connection_watcher.js'), options);
    this.thread.on('message', onMessage);
    this.thread.on('error', () => process.exit(1));
  }

  send(type, members) {
    this.sent += 1;
    this.thread.postMessage(encodeLine({ type, ...members }));
  }

  // Wait until everything that was sent has been written. Returns whether it has.
  flush() {
    const deadline = Date.now() + FLUSH_TIMEOUT;
    for (;;) {
      const written = Atomics.load(this.written, 0);
      const left = deadline - Date.now();
      if (written >= this.sent || left <= 0) return written >= this.sent;
      Atomics.wait(this.written, 0, written, left);
    }
  }

  // Let the event loop end, although the thread runs.
  unref() {
    this.thread.unref();
  }
}

function encodeLine(message) {
  let line = JSON.stringify(message) + '\n';
  for (let max = 16384; Buffer.byteLength(line) > MAX_LINE && max > 0; max = Math.floor(max / 2)) {
    const cut = {};
    for (const [name, value] of Object.entries(message)) {
      cut[name] = typeof value === 'string' ? value.slice(-max) : value;
    }
    line = JSON.stringify(cut) + '\n';
  }
  return line;
}

module.exports = { ControlConnection };
