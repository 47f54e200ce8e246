'use strict';

// The main thread's side.

const { Worker } = require('worker_threads');

const MAX_LINE = 65536;
const FLUSH_TIME = 2000;

class Control {
  constructor(socket, receive) {
    const written = new SharedArrayBuffer(4);
    this.written = new Int32Array(written);
    this.sent = 0;
    // None of the application's options and variables are for this thread: they would load its modules a second time.
    this.worker = new Worker(require.resolve('./control_thread.js'), { workerData: { socket, written }, env: {}, execArgv: [] });
    this.worker.on('message', receive);
    this.worker.on('error', () => process.exit(1));
  }

  tell(type, members) {
    this.sent += 1;
    this.worker.postMessage(lineOf({ type, ...members }));
  }

  // Wait until all that was told has been written.
  flush() {
    const deadline = Date.now() + FLUSH_TIME;
    for (;;) {
      const seen = Atomics.load(this.written, 0);
      const left = deadline - Date.now();
      if (seen >= this.sent || left <= 0) return;
      Atomics.wait(this.written, 0, seen, left);
    }
  }

  unref() {
    this.worker.unref();
  }
}

// A line that is not too long: texts are cut at their front.
function lineOf(message) {
  let line = JSON.stringify(message) + '\n';
  for (let most = 16384; Buffer.byteLength(line) > MAX_LINE && most > 0; most = Math.floor(most / 2)) {
    const cut = {};
    for (const [name, value] of Object.entries(message)) cut[name] = typeof value === 'string' ? value.slice(-most) : value;
    line = JSON.stringify(cut) + '\n';
  }
  return line;
}

module.exports = { Control };
