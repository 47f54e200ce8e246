'use strict';

// Runs a Node.js application for passenger_trio, in the application's own interpreter, and keeps spawn_servers/CONTRACT.md, which is the text to
// read first. Node 16 and everything after it, on the standard library alone.
//
// The application is run unmodified, as `node FILE` would run it: ES module or CommonJS. The first listen() of an http.Server is redirected to the
// Unix socket that the supervisor has named; the supervisor speaks HTTP there. The file is read from top to bottom:
//
//     watchman       the thread that holds the control connection
//     Control        the main thread's side of it
//     Redirection    listen()
//     Stopping       the requests in hand, and the end
//     Life           from the options to `ready`
//     explain        from an exception to advice
//
// Laws:
//
// * The control connection belongs to a thread of its own, so that the end of the supervisor is seen also while the application computes. The main
//   thread is told first, and runs the exit hooks; LAST_SECOND later the process is killed. (What computes cannot be interrupted in Node: then there are no hooks.)
// * A message that the main thread has sent before it exits has been written: it waits for that.
// * Nothing of ours keeps the event loop alive: an application that has nothing left to do before it has listened is told so, and not waited for.

const { isMainThread, parentPort, workerData, Worker } = require('worker_threads');

const CONTRACT = 1;
const MAX_LINE = 65536;
const LAST_SECOND = 700; // milliseconds from the supervisor's end to ours; the contract allows 1000
const FLUSH_TIME = 2000;
const MOST_RESERVED = 15; // seconds, at the most, that a stop keeps for what comes behind the requests in hand
const OURS = 'passenger_trio control connection';

// The watchman: lines of the control connection to messages for the main thread, and back.

function watchman({ socket, written }) {
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
}

// The main thread's side.

class Control {
  constructor(socket, receive) {
    const written = new SharedArrayBuffer(4);
    this.written = new Int32Array(written);
    this.sent = 0;
    // None of the application's options and variables are for this thread: they would load its modules a second time.
    this.worker = new Worker(__filename, { workerData: { OURS, socket, written }, env: {}, execArgv: [] });
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

// Redirection: the first listen() of an HTTP server.

class Redirection {
  constructor(path, listened) {
    const { Server } = require('net');
    const http = require('http');
    this.path = path;
    this.listened = listened;
    this.server = null;
    this.port = undefined;
    const original = Server.prototype.listen;
    const redirection = this;
    Server.prototype.listen = function listen(...args) {
      if (!(this instanceof http.Server)) {
        if (redirection.server === null) hintAt(this, portOf(args));
        return original.apply(this, args);
      }
      if (redirection.server === null || redirection.server === this) return redirection.take(this, args, original);
      if (redirection.port && portOf(args) === redirection.port) { // 0 is another one each time
        // A second address of the same server, as for "localhost" in IPv4 and IPv6: whoever asks for it is served already.
        const callback = args[args.length - 1];
        if (typeof callback === 'function') this.once('listening', callback);
        process.nextTick(() => this.emit('listening'));
        return this;
      }
      return original.apply(this, args);
    };
  }

  take(server, args, original) {
    this.server = server;
    this.port = portOf(args);
    // Applications want to see an address, and a proxy on this machine is what they are behind.
    server.prependListener('connection', (socket) => {
      const about = { remoteAddress: '127.0.0.1', remoteFamily: 'IPv4', remotePort: 0 };
      for (const [name, value] of Object.entries(about)) Object.defineProperty(socket, name, { value, configurable: true });
    });
    const callback = args[args.length - 1];
    const { signal } = Object(args[0]);
    this.listened(server);
    return original.call(server, { path: this.path, backlog: 2048, ...(signal && { signal }) }, typeof callback === 'function' ? callback : undefined);
  }
}

// If no HTTP server ever listens, a person wants to know what did.
function hintAt(server, port) {
  const kind = { Http2Server: 'HTTP/2', Http2SecureServer: 'HTTP/2 with TLS', Server: 'TLS' }[server.constructor.name];
  if (!kind || (kind === 'TLS' && !(server instanceof require('tls').Server))) return;
  const where = port === undefined ? '' : ` on port ${port}`;
  life.control.tell('event', {
    name: 'hint',
    fields: {
      problem: `A server for ${kind} listens${where}, and none for HTTP/1.1, which is what it is spoken to in: HTTP/2 and TLS end before the application.`,
      solution: kind === 'HTTP/2 with TLS' ? 'Let http2.createSecureServer() be http.createServer(), with the same handler.' : `Let ${kind === 'TLS' ? 'https' : 'http2'}.createServer() be http.createServer(), with the same handler.`,
    },
  });
}

function portOf([first]) {
  const port = first !== null && typeof first === 'object' ? first.port : first;
  return typeof port === 'number' || (typeof port === 'string' && /^\d+$/.test(port)) ? Number(port) : undefined;
}

// Stopping: what is in hand is finished, then the process ends.

class Stopping {
  constructor(server) {
    this.server = server;
    this.begun = false;
    this.done = null; // what is to be done when the server has closed, until it is told to
    this.looking = false;
    this.accepted = false; // a connection, since the last look
    this.sockets = new Map(); // socket -> its newest session: { busy, whole: bytes read when its request was there as a whole, or -1, seen: at the last look }
    server.on('connection', (socket) => {
      this.accepted = true;
      this.sockets.set(socket, { busy: false, whole: 0, seen: 0 });
      socket.on('close', () => this.sockets.delete(socket));
    });
    // Not by listeners: what Node does with an event can depend on there being one.
    const { emit, close, closeIdleConnections } = server;
    const stopping = this;
    server.emit = function emitAndCount(event, request, response) {
      if (event === 'request') stopping.take(request, response);
      else if (event === 'upgrade' || event === 'connect') stopping.sockets.set(request.socket, { busy: true });
      return emit.apply(this, arguments);
    };
    // Many applications stop themselves when they are told to. Node would end connections on which a request waits to be read.
    server.close = function closeInTime(callback) {
      if (!stopping.begun) return close.apply(this, arguments);
      if (typeof callback === 'function') this.once('close', callback);
      return this;
    };
    if (closeIdleConnections) { // Node 18.2
      server.closeIdleConnections = function closeIdleInTime() {
        if (!stopping.begun) closeIdleConnections.call(this);
      };
    }
  }

  take(request, response) {
    const { socket } = request;
    if (!this.sockets.has(socket)) return; // a request that the application has made up
    const session = { busy: true, whole: -1, seen: -1 };
    this.sockets.set(socket, session);
    const isWhole = () => { session.whole = socket.bytesRead; };
    process.nextTick(() => (request.complete ? isWhole() : request.once('close', isWhole)));
    response.on('close', () => {
      // A response may be whole long before its `end`: then the next request can be here already.
      session.busy = false;
      if (this.begun) this.look();
    });
  }

  begin(done) {
    if (this.begun) return;
    this.begun = true;
    this.done = done;
    this.look();
  }

  // What has been sent before is in hand, and may wait in the kernel. A turn of the event loop accepts one connection, and reads one block of each:
  // all is here after two in which nothing came.
  look() {
    if (this.looking) return;
    this.looking = true;
    let quiet = 0;
    const turn = () => {
      quiet = this.stirs() ? 0 : quiet + 1;
      if (quiet < 2) {
        setImmediate(turn);
        return;
      }
      this.looking = false;
      const { done } = this;
      this.done = null;
      // The HTTP server's own `close` (Node 19 and newer) also ends connections whose response was written but has not gone yet.
      if (done) require('net').Server.prototype.close.call(this.server, () => done());
      this.endIdle();
    };
    setImmediate(turn);
  }

  stirs() {
    let found = this.accepted;
    this.accepted = false;
    for (const [socket, session] of this.sockets) {
      if (session.busy || session.seen === socket.bytesRead) continue;
      session.seen = socket.bytesRead;
      found = true;
    }
    return found;
  }

  // What is in hand has had its time.
  cancel() {
    for (const [socket, { busy }] of this.sockets) if (busy) socket.destroy();
  }

  // A session is over with its response, also if nobody wanted the rest of its request. What came behind a whole request is the next head.
  endIdle() {
    for (const [socket, { busy, whole }] of this.sockets) if (!busy && (whole === -1 || whole === socket.bytesRead)) socket.destroy();
  }
}

// Life

const life = {
  control: null,
  options: null,
  stopping: null,
  step: '',
  began: 0,
  ready: false,
  failed: false,
  leaving: false,
  asked: false, // by a message that is being acted on, and not by a signal
  terms: 0, // signals: a service manager may send one beside the message
  loaded: false,

  receive(message) {
    switch (message.type) {
      case 'options':
        life.control.unref();
        life.options = message;
        life.load();
        break;
      case 'shutdown':
        // As if it had come as a signal: the application may listen for that, and may have removed all that did.
        life.asked = true;
        try {
          if (!process.emit('SIGTERM', 'SIGTERM', 15)) life.stop();
        } finally {
          life.asked = false;
        }
        break;
      case 'gone':
        life.leaving = true;
        process.exit(0);
        break;
      default: // a message of next year
    }
  },

  begin(name) {
    life.step = name;
    life.began = process.hrtime.bigint();
    life.control.tell('step', { name, state: 'in_progress' });
  },

  end(state) {
    const duration = Number(process.hrtime.bigint() - life.began) / 1e9;
    life.control.tell('step', { name: life.step, state, duration });
    life.step = '';
  },

  stop() {
    if (!life.asked) life.terms += 1;
    if (life.terms > 1 || !life.ready) {
      life.leaving = true;
      process.exit(life.terms > 1 ? 143 : 0);
    }
    if (life.stopping.begun) return;
    const leave = () => {
      life.leaving = true;
      process.exit(0);
    };
    const timeout = life.options.shutdown_timeout;
    const reserved = Math.min(timeout / 2, MOST_RESERVED);
    setTimeout(() => life.stopping.cancel(), (timeout - reserved) * 1000).unref();
    setTimeout(leave, (timeout - reserved / 3) * 1000).unref();
    // The requests hear of their ends before: a handle tells of its end in the last phase of a turn of the event loop.
    life.stopping.begin(() => setImmediate(() => setImmediate(leave)));
  },

  load() {
    const { options } = life;
    life.begin('prepare_runtime');
    const path = require('path');
    const file = options.startup_file;
    process.on('SIGTERM', life.stop);
    process.on('SIGINT', () => {}); // a handler, and not ignored: no program that the application starts inherits that
    process.on('uncaughtExceptionMonitor', (error) => {
      if (process.listenerCount('uncaughtException') === 0) life.fail(explain(error));
    });
    process.on('beforeExit', () => {
      if (!life.ready) life.failAndExit(neverListened(life.exported));
    });
    process.on('exit', (code) => {
      if (!life.ready && !life.leaving && !life.failed) {
        life.fail(exited(code));
        process.exitCode = 1;
      }
      life.control.flush();
    });
    new Redirection(path.join(options.socket_dir, options.socket_name), (server) => life.listens(server));
    require('cluster').on('listening', (worker, { port }) => {
      if (!life.stopping) life.failAndExit(clustered(port));
    });
    process.argv[1] = file;
    life.end('performed');
    life.begin('load_application');
    life.run(file).then(
      () => life.isLoaded(),
      (error) => {
        process.stderr.write(`${traceOf(error)}\n`);
        life.failAndExit(explain(error));
      },
    );
  },

  // As `node FILE`.
  async run(file) {
    const fs = require('fs');
    if (!fs.existsSync(file)) throw new Unfit(`There is no file ${file}`);
    if (isModule(file)) {
      await import(require('url').pathToFileURL(file).href);
      return;
    }
    const Module = require('module');
    try {
      life.exported = Module._load(file, null, true);
    } catch (error) {
      // Node 22 loads a module by require() as well, unless it has to wait for something.
      if (error.code !== 'ERR_REQUIRE_ASYNC_MODULE' && error.code !== 'ERR_REQUIRE_ESM') throw error;
      await import(require('url').pathToFileURL(file).href);
    }
  },

  isLoaded() {
    if (life.loaded || life.failed) return;
    life.loaded = true;
    life.end('performed');
    life.begin('listen');
    if (life.heard) life.isReady();
  },

  listens(server) {
    if (life.stopping === null) life.stopping = new Stopping(server);
    server.once('listening', () => {
      life.heard = true;
      // A module that waits at its top level for something that comes after listen() is not waited for.
      if (life.loaded) life.isReady();
      else setImmediate(() => life.isLoaded());
    });
  },

  isReady() {
    if (life.ready || life.failed) return;
    const { options } = life;
    life.end('performed');
    life.ready = true;
    const address = `unix:${options.socket_dir}/${options.socket_name}`;
    life.control.tell('ready', { sockets: [{ address, protocol: 'http', concurrency: options.threads }], application: options.name });
  },

  fail(report) {
    if (life.ready || life.failed) return;
    life.failed = true;
    if (life.step) life.end('errored');
    life.control.tell('error', report);
    life.control.flush();
  },

  failAndExit(report) {
    life.fail(report);
    process.exit(1);
  },
};

function isModule(file) {
  if (/\.mjs$/.test(file)) return true;
  if (/\.cjs$/.test(file)) return false;
  const fs = require('fs');
  const path = require('path');
  for (let directory = path.dirname(fs.realpathSync(file)); ; directory = path.dirname(directory)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(directory, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT') return false; // what is wrong with it Node will say
    }
    if (directory === path.dirname(directory) || path.basename(directory) === 'node_modules') return false;
  }
}

// What a person is told.

class Unfit extends Error {}

const AGAIN = 'It is started again with the next request, or when it is restarted.';

function report(category, summary, problem, solution, traceback) {
  const details = `Node.js ${process.version} (${process.execPath})`;
  return { category, summary: summary.slice(0, 4096), problem, solution, traceback, details };
}

function explain(error) {
  if (error instanceof Unfit) {
    return report('configuration', error.message, 'What was to be loaded is not there.', 'Name another file with --startup-file.', '');
  }
  const trace = traceOf(error);
  const text = error instanceof Error ? error.message : String(error);
  const name = error instanceof Error ? error.name : typeof error;
  const code = error && error.code;
  const missing = /Cannot find (?:module|package) '([^']+)'/.exec(text);
  if ((code === 'MODULE_NOT_FOUND' || code === 'ERR_MODULE_NOT_FOUND') && missing) {
    const module = missing[1];
    const own = module.startsWith('.') || module.startsWith('/');
    const solution = own ? 'Check the path; in an ES module it needs its extension.' : `Install what the application needs, in its directory: npm install (or: npm install ${module})`;
    return report('application', `The application needs ${module}, which cannot be found`, text, solution, trace);
  }
  if (name === 'SyntaxError') {
    let solution = `Mend the line. ${AGAIN}`;
    if (/import statement outside a module|Unexpected token 'export'/.test(text)) {
      solution = 'It is an ES module: write "type": "module" into package.json, or call the file .mjs.';
    }
    return report('application', `The application has a syntax error: ${text.split('\n')[0]}`, `Node.js ${process.version} cannot read the file.`, solution, trace);
  }
  if (code === 'EADDRINUSE' || code === 'EACCES') {
    const solution = 'The first HTTP server that listens is redirected; any other listens where it says, and can do so in one process only.';
    return report('application', `The application cannot listen: ${text}`, 'It listens on more than one address.', solution, trace);
  }
  return report('application', `The application threw ${name}: ${text}`, 'It did so while it was loaded. The traceback is below.', `Mend the application. ${AGAIN}`, trace);
}

function clustered(port) {
  return report(
    'application',
    'The application lets workers of its own listen, by the module cluster',
    `A worker listens on port ${port}, where nobody is sent.`,
    'Let it listen in the process that is started: it is started as often as processes are wanted (--min-instances, --max-pool-size).',
    '',
  );
}

function exited(code) {
  return report(
    'application',
    `The application ended the process before it listened: process.exit(${code || ''})`,
    'It did not call listen() before.',
    'Look at the output. Run under the supervisor, it has to stay and listen.',
    '',
  );
}

function neverListened(exported) {
  const isApplication = typeof exported === 'function';
  return report(
    'application',
    'The application was loaded, and does not listen',
    isApplication
      ? 'It exports a function, as an Express application does that another file starts; nothing calls listen(), and there is nothing left to do.'
      : 'No HTTP server of it calls listen(), and there is nothing left to do.',
    isApplication ? 'Name the file that starts it, such as --startup-file bin/www, or call listen() in this one.' : 'Call listen() on an http.Server (not https: TLS ends before the application), or name the file that does with --startup-file.',
    '',
  );
}

function traceOf(error) {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack || String(error);
  const lines = own.split('\n').filter((line) => !line.includes(__filename) && !/^\s+at .*\(?node:internal/.test(line));
  return lines.join('\n') + (error.cause === undefined ? '' : `\nCaused by: ${traceOf(error.cause)}`);
}

if (isMainThread) {
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
} else if (workerData && workerData.OURS === OURS) {
  watchman(workerData);
}
