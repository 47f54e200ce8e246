'use strict';

// Runs a Node.js application for passenger_trio, in the application's own interpreter: Node 16 and newer, standard library
// only. Read ../CONTRACT.md first.
//
// The application runs unmodified, as `node FILE` would run it: ES module or CommonJS. The first listen() of an http.Server
// is redirected to the Unix socket that the supervisor named. The supervisor speaks HTTP on it.
//
// Read the files of passenger_trio/ in this order:
//
//     control_connection.js    the main thread's side of the control connection
//     connection_watcher.js    the thread that holds it, and ends the process with it
//     backtraces.js            what the main thread does, for a person who asks
//     listen_redirection.js    listen()
//     stopping.js              the requests in hand, and the end
//     loading.js               from the options to `ready`; the process's state
//     advice.js                from an exception to what a person is told
//
// Laws:
//
// * Nothing of ours keeps the event loop alive. An application that has nothing left to do before it listens is told so.
// * What we say before the process exits has been written: exiting waits for it.
// * package.json makes these files CommonJS, whatever the project is in which passenger_trio is installed.

const { ControlConnection } = require('./passenger_trio/control_connection.js');
const { loader } = require('./passenger_trio/loading.js');

const CONTRACT_VERSION = 1;

const socket = process.env.PASSENGER_TRIO_SPAWN_SOCKET;
const token = process.env.PASSENGER_TRIO_SPAWN_TOKEN;
delete process.env.PASSENGER_TRIO_SPAWN_SOCKET;
delete process.env.PASSENGER_TRIO_SPAWN_TOKEN;
if (!socket || !token) {
  process.stderr.write('passenger_trio starts this program; do not start it by hand\n');
  process.exit(1);
}
loader.control = new ControlConnection(socket, loader.onMessage);
loader.control.send('hello', {
  token, contract: CONTRACT_VERSION, role: 'worker', language: 'node', version: process.versions.node, pid: process.pid,
});
