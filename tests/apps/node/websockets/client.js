'use strict';
// A real socket.io client: node client.js URL TRANSPORTS. One JSON line for each thing that happens; it ends with its input.
const { io } = require('socket.io-client');

const [url, transports] = process.argv.slice(2);
const options = { transports: transports.split(','), reconnectionDelay: 100, reconnectionDelayMax: 200 };
// As a browser does, it keeps the cookies that it is given (OP13).
const socket = io(url, { ...options, withCredentials: true });
const tell = (what, more) => console.log(JSON.stringify({ what, ...more }));
const large = Buffer.alloc(300000, 'ab');

// What it begins with; when it is connected, it may have changed already.
let first = '';
socket.io.on('open', () => (first = socket.io.engine.transport.name));

socket.on('connect', () => {
  const engine = socket.io.engine;
  const begin = () => {
    socket.emit('echo', { hello: 'wörld', bytes: large }, (value, transport) => {
      tell('echo', { transport, same: value.hello === 'wörld' && large.equals(value.bytes) });
      socket.emit('shout', 'all');
    });
  };
  tell('connect', { transport: first });
  if (engine.transport.name === 'websocket') begin();
  else if (transports.includes('websocket')) engine.once('upgrade', begin);
  else begin();
});
socket.on('shouted', (value) => tell('shouted', { value }));
socket.on('disconnect', (reason) => tell('disconnect', { reason }));
socket.on('connect_error', (error) => tell('connect_error', { error: error.message }));
// It says goodbye, and ends when that is said: of a client that has only closed its side, who may still listen, the server would keep the poll (RFC 9112 9.6).
process.stdin
  .on('end', () => {
    setTimeout(() => process.exit(0), 5000).unref();
    socket.disconnect();
  })
  .resume();
