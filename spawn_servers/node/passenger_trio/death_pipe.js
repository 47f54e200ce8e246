'use strict';

// The watchman: lines of the control connection to messages for the main thread, and back.

const { parentPort, workerData } = require('worker_threads');

const LAST_SECOND = 700; // milliseconds from the supervisor's end to ours; the contract allows 1000

const { socket, written } = workerData;
const net = require('net');
const counter = new Int32Array(written);
let rest = '';

const connection = net.connect(socket);
connection.setEncoding('utf8');
connection.on('data', (text) => {
  const lines = (rest + text).split('\n');
  rest = lines.pop();
  for (const line of lines) {
    let message;
    try {
      message = JSON.parse(line);
    } catch (error) {
      gone(); // that is no supervisor
      return;
    }
    parentPort.postMessage(message);
  }
});
connection.on('error', gone);
connection.on('close', gone);

let ending = false;
function gone() {
  if (ending) return;
  ending = true;
  parentPort.postMessage({ type: 'gone' });
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), LAST_SECOND);
  acknowledge(1 << 30); // nobody is to wait for what nobody reads
}

function acknowledge(count) {
  Atomics.add(counter, 0, count);
  Atomics.notify(counter, 0);
}

parentPort.on('message', (line) => connection.write(line, () => acknowledge(1)));
