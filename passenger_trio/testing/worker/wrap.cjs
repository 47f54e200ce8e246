'use strict';

// What the Node.js loader calls before it loads the application: wrap().
//
// Armed faults are made at their points (fault_points.py describes the directory), and the time of each request is noted
// (times.py). There is no lint: what passes between an application and Node.js has no rules of its own. Node.js 16 and
// newer, standard library only; the name says CommonJS, whatever the project is in which this file is installed.
//
// Without an armed fault a response is not touched.

const fs = require('fs');
const http = require('http');
const path = require('path');

const POLL = 5; // milliseconds

function armed() {
  const directory = process.env.HARNESS_FAULTS;
  try {
    return directory ? fs.readdirSync(path.join(directory, 'armed')).sort() : [];
  } catch {
    return []; // the harness has gone
  }
}

// The next fault that is armed for this point, or null.
function claim(point, target) {
  const directory = process.env.HARNESS_FAULTS;
  for (const name of armed()) {
    if (name.split('.')[0] !== point) continue;
    try {
      const order = JSON.parse(fs.readFileSync(path.join(directory, 'armed', name), 'utf8'));
      if (!target.startsWith(order.path || '')) continue;
      const mark = path.join(directory, 'fired', `${name}.${process.pid}`);
      fs.renameSync(path.join(directory, 'armed', name), mark);
      return { order, mark };
    } catch {
      continue; // another process was first, or the harness has taken it back
    }
  }
  return null;
}

function block(milliseconds) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

// Make a fault. `socket`: of the request, if there is one.
function perform({ order, mark }, socket) {
  switch (order.action) {
    case 'kill': return process.kill(process.pid, 'SIGKILL');
    case 'stop': return process.kill(process.pid, 'SIGSTOP');
    case 'exit': return process.reallyExit(order.status);
    case 'raise': throw new Error(order.message);
    case 'sleep': return block(order.seconds * 1000);
    case 'hold':
    case 'hang':
      while (fs.existsSync(mark)) block(POLL);
      return undefined;
    case 'oom':
      Buffer.alloc(order.size, 1);
      return process.kill(process.pid, 'SIGKILL');
    case 'close_stream': return socket && socket.destroy();
    case 'bad_frame': return socket && socket.end(Buffer.alloc(64, 0xff));
    default: return undefined; // of a newer harness
  }
}

// As perform, where other requests of this process go on meanwhile.
async function at(point, target, socket) {
  const fault = claim(point, target);
  if (!fault) return;
  if (fault.order.action === 'hold') {
    while (fs.existsSync(fault.mark)) await new Promise((resolve) => setTimeout(resolve, POLL));
  } else {
    perform(fault, socket);
  }
}

// A response under a fault: its first piece comes in two, and its last byte alone, so that there is a moment in the
// middle and one before the end, whatever the application writes.
function addPoints(request, response) {
  const target = request.url.split('?')[0];
  const write = response.write.bind(response);
  const end = response.end.bind(response);
  const flushed = (data) => new Promise((resolve) => (data.length ? write(data, () => resolve()) : resolve()));
  let work = Promise.resolve();
  let inBody = false;
  let held = Buffer.alloc(0);
  const add = (chunk, encoding) => {
    const data = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk);
    work = work.then(async () => {
      let rest = data;
      if (!inBody && data.length) {
        inBody = true;
        const half = Math.floor(data.length / 2);
        await flushed(data.subarray(0, half));
        await at('mid_body', target, request.socket);
        rest = data.subarray(half);
      }
      const whole = Buffer.concat([held, rest]);
      held = whole.subarray(Math.max(0, whole.length - 1));
      await flushed(whole.subarray(0, whole.length - held.length));
    });
  };
  response.write = (chunk, encoding, callback) => {
    const done = typeof encoding === 'function' ? encoding : callback;
    add(chunk, typeof encoding === 'string' ? encoding : 'utf8');
    if (done) work.then(() => done());
    return true;
  };
  response.end = (chunk, encoding, callback) => {
    const done = [chunk, encoding, callback].find((one) => typeof one === 'function');
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') {
      add(chunk, typeof encoding === 'string' ? encoding : 'utf8');
    }
    work = work.then(async () => {
      await at('before_end', target, request.socket);
      await new Promise((resolve) => end(held, resolve));
      await at('after_end', target, request.socket);
      if (done) done();
    });
    return response;
  };
}

function note(request, response) {
  const file = process.env.HARNESS_TIMES;
  if (!file) return;
  const begun = Date.now() / 1000;
  response.once('close', () => {
    const line = { request_id: request.headers['x-request-id'] || '', begun, ended: Date.now() / 1000, pid: process.pid };
    try {
      // Without "create": the harness has removed the file when it ended.
      const descriptor = fs.openSync(file, fs.constants.O_WRONLY | fs.constants.O_APPEND);
      fs.writeSync(descriptor, `${JSON.stringify({ ...line, raised: '' })}\n`);
      fs.closeSync(descriptor);
    } catch {
      // the harness has gone
    }
  });
}

function wrap() {
  for (const point of ['load', 'fork']) {
    const fault = claim(point, '');
    if (fault) perform(fault, null);
  }
  const emit = http.Server.prototype.emit;
  http.Server.prototype.emit = function emitWithFaults(name, request, response, ...more) {
    if (name !== 'request') return emit.call(this, name, request, response, ...more);
    note(request, response);
    if (armed().length === 0) return emit.call(this, name, request, response, ...more);
    at('head', request.url.split('?')[0], request.socket).then(() => {
      addPoints(request, response);
      // Outside of this promise: what the application throws is its own uncaught exception.
      setImmediate(() => emit.call(this, name, request, response, ...more));
    });
    return true;
  };
}

module.exports = { wrap };
