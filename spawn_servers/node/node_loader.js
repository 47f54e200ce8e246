'use strict';

// Runs a Node.js application for passenger_trio, in the application's own interpreter, and keeps spawn_servers/CONTRACT.md, which is the text to
// read first. Node 16 and everything after it, on the standard library alone.
//
// The application is run unmodified, as `node FILE` would run it: ES module or CommonJS. The first listen() of an http.Server is redirected to the
// Unix socket that the supervisor has named; the supervisor speaks HTTP there. The files of passenger_trio/ are read in this order:
//
//     control_thread.js  the thread that holds the control connection
//     control.js         the main thread's side of it
//     redirection.js     listen()
//     stopping.js        the requests in hand, and the end
//     life.js            from the options to `ready`
//     advice.js          from an exception to advice
//
// Laws:
//
// * The control connection belongs to a thread of its own, so that the end of the supervisor is seen also while the application computes. The main
//   thread is told first, and runs the exit hooks; LAST_SECOND later the process is killed. (What computes cannot be interrupted in Node: then there are no hooks.)
// * A message that the main thread has sent before it exits has been written: it waits for that.
// * Nothing of ours keeps the event loop alive: an application that has nothing left to do before it has listened is told so, and not waited for.

const { Control } = require('./passenger_trio/control.js');
const { life } = require('./passenger_trio/life.js');

const CONTRACT = 1;

const socket = process.env.PASSENGER_TRIO_SPAWN_SOCKET;
const token = process.env.PASSENGER_TRIO_SPAWN_TOKEN;
delete process.env.PASSENGER_TRIO_SPAWN_SOCKET;
delete process.env.PASSENGER_TRIO_SPAWN_TOKEN;
if (!socket || !token) {
  process.stderr.write('node_loader.js is started by passenger_trio, and not by hand\n');
  process.exit(1);
}
life.control = new Control(socket, life.receive);
life.control.tell('hello', { token, contract: CONTRACT, role: 'worker', language: 'node', version: process.versions.node, pid: process.pid });
