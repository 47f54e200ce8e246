'use strict';
// The application that passenger_trio.testing.conformance drives; the paths are described there.
const fs = require('fs');
const http = require('http');

const loadedBy = process.pid;
if (process.env.CONFORMANCE_HOOK_FILE) {
  process.on('exit', () => fs.appendFileSync(process.env.CONFORMANCE_HOOK_FILE, `${process.pid}\n`));
}

const start = process.env.CONFORMANCE_START;
if (start === 'raise') throw new Error('conformance: raised while it was loaded');
if (start === 'raise-long') throw new Error(`conformance: ${'\x01\u20ac'.repeat(100000)} the end`);
if (start === 'exit') process.exit(3);

const text = (response, data, headers = {}) => response.writeHead(200, { 'Content-Type': 'text/plain', ...headers }).end(data);

const paths = {
  '/hello': (request, response) => text(response, 'hello'),
  '/meta': (request, response) => {
    const meta = { REQUEST_METHOD: request.method, REQUEST_URI: request.url };
    for (const [name, value] of Object.entries(request.headers)) meta[`HTTP_${name.toUpperCase().replace(/-/g, '_')}`] = value;
    text(response, Object.entries(meta).map(([name, value]) => `${name}=${value}\n`).join(''));
  },
  '/echo': (request, response) => {
    const pieces = [];
    request.on('data', (piece) => pieces.push(piece)).on('end', () => text(response, Buffer.concat(pieces)));
  },
  '/deaf': (request, response) => text(response, 'deaf'),
  '/chunks': (request, response) => {
    response.write('one');
    setImmediate(() => { response.write('two'); setImmediate(() => response.end('three')); });
  },
  '/gate': (request, response, query) => {
    response.write('one');
    const timer = setInterval(() => {
      if (!fs.existsSync(query)) return;
      clearInterval(timer);
      response.end('two');
    }, 2);
    response.on('close', () => clearInterval(timer));
  },
  '/endless': (request, response, query) => {
    const timer = setInterval(() => response.write('x'.repeat(1000)), 1);
    response.on('close', () => { clearInterval(timer); fs.appendFileSync(query, 'closed\n'); });
  },
  '/large': (request, response) => text(response, Buffer.alloc(20000000, 'x')),
  '/status': (request, response, query) => response.writeHead(Number(query), { 'X-Test': '1' }).end('body'),
  '/print': (request, response, query) => { console.log(query); text(response, 'printed'); },
  '/sleep': (request, response, query) => setTimeout(() => text(response, 'done'), Number(query) * 1000),
  '/spin': (request, response, query) => {
    const until = Date.now() + Number(query) * 1000;
    while (Date.now() < until);
    text(response, 'done');
  },
  '/process': (request, response) => {
    const facts = { pid: process.pid, loaded_by: loadedBy, random: Math.random(), signals: '', variables: Object.keys(process.env).sort().join(' ') };
    text(response, Object.entries(facts).map(([name, value]) => `${name}=${value}\n`).join(''));
  },
};

const server = http.createServer((request, response) => {
  const [, path, query] = /^([^?]*)\??(.*)$/.exec(request.url);
  paths[path](request, response, query);
});
const listen = () => server.listen(process.env.PORT || 3000);
if (start === 'sleep') setTimeout(listen, 60000);
else listen();
