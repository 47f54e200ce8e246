'use strict';

// Life

const { Unfit, clustered, exited, explain, neverListened, traceOf } = require('./advice.js');
const { Redirection } = require('./redirection.js');
const { Stopping } = require('./stopping.js');

const MOST_RESERVED = 15; // seconds, at the most, that a stop keeps for what comes behind the requests in hand

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
    new Redirection(path.join(options.socket_dir, options.socket_name), (server) => life.listens(server), (type, members) => life.control.tell(type, members));
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

module.exports = { life };
