'use strict';

// From the options to `ready`, and the state of this process.
//
// Knows the order of the steps, the messages of the supervisor, the signals and the ways in which a process ends. How an
// application listens is in listen_redirection.js, how requests end in stopping.js.
//
// Laws:
//
// * The process is ready when its module has been loaded and its server listens, in either order. If the module waits at
//   its top level for something that comes after listen(), the start does not wait for the module.
// * A start that fails is reported once, with advice.
// * "shutdown" acts as SIGTERM does: the application may handle that. A second SIGTERM ends the process at once.

const { StartupError, backtraceOf, explain, explainCluster, explainExit, explainSilence, hintAt } = require('./advice.js');
const { ListenRedirection } = require('./listen_redirection.js');
const { Stopping } = require('./stopping.js');

const MAX_RESERVE = 15; // seconds, at most, of a stop that are kept for what follows the requests in hand

const loader = {
  control: null,
  options: null,
  stopping: null,
  step: '', // the current step's name
  stepBegan: 0,
  exported: undefined, // by a CommonJS module
  loaded: false,
  listening: false,
  ready: false,
  failed: false,
  exiting: false, // on purpose
  byMessage: false, // whether a SIGTERM that is being handled was a "shutdown"
  sigterms: 0,

  onMessage(message) {
    switch (message.type) {
      case 'options':
        loader.control.unref();
        loader.options = message;
        loader.load();
        break;
      case 'shutdown':
        if (loader.options && message.within !== undefined) {
          loader.options.shutdown_timeout = Math.min(loader.options.shutdown_timeout, message.within);
        }
        loader.byMessage = true;
        try {
          // The application may have removed all listeners, ours too.
          if (!process.emit('SIGTERM', 'SIGTERM', 15)) loader.stop();
        } finally {
          loader.byMessage = false;
        }
        break;
      case 'gone': // from our own thread: the supervisor is gone
        loader.exiting = true;
        process.exit(0);
        break;
      default: // of a newer contract
    }
  },

  beginStep(name) {
    loader.step = name;
    loader.stepBegan = process.hrtime.bigint();
    loader.control.send('step', { name, state: 'in_progress' });
  },

  endStep(state) {
    const duration = Number(process.hrtime.bigint() - loader.stepBegan) / 1e9;
    loader.control.send('step', { name: loader.step, state, duration });
    loader.step = '';
  },

  // Called at SIGTERM and "shutdown".
  stop() {
    if (!loader.byMessage) loader.sigterms += 1;
    if (loader.sigterms > 1 || !loader.ready) {
      loader.exiting = true;
      process.exit(loader.sigterms > 1 ? 143 : 0);
    }
    if (loader.stopping.begun) return;
    const exit = () => {
      loader.exiting = true;
      process.exit(0);
    };
    const timeout = loader.options.shutdown_timeout;
    const reserve = Math.min(timeout / 2, MAX_RESERVE);
    setTimeout(() => loader.stopping.cancel(), (timeout - reserve) * 1000).unref();
    setTimeout(exit, (timeout - reserve / 3) * 1000).unref();
    // Requests hear of their ends first: 'close' is emitted in the last phase of a turn of the event loop.
    loader.stopping.begin(() => setImmediate(() => setImmediate(exit)));
  },

  load() {
    const { options } = loader;
    loader.beginStep('prepare_runtime');
    const path = require('path');
    const file = options.startup_file;
    loader.handleEvents();
    new ListenRedirection(
      path.join(options.socket_dir, options.socket_name),
      (server) => loader.onListen(server),
      (server, port) => {
        const hint = hintAt(server, port);
        if (hint) loader.control.send('event', { name: 'hint', fields: hint });
      },
    );
    require('cluster').on('listening', (worker, { port }) => {
      if (!loader.stopping) loader.failAndExit(explainCluster(port));
    });
    process.argv[1] = file;
    loader.endStep('performed');
    loader.beginStep('load_application');
    loader.wrapApplication().then(() => loader.runFile(file)).then(
      () => loader.onLoaded(),
      (error) => {
        loader.failAndExit(explain(error), error);
      },
    );
  },

  // A test harness stands between the application and Node.js, if it asks for that: by wrap.cjs in the directory
  // HARNESS_WRAPPER.
  async wrapApplication() {
    const directory = process.env.HARNESS_WRAPPER;
    if (directory) require(require('path').join(directory, 'wrap.cjs')).wrap();
  },

  handleEvents() {
    process.on('SIGTERM', loader.stop);
    process.on('SIGINT', () => {}); // A handler, because programs that the application starts would inherit "ignored".
    process.on('uncaughtExceptionMonitor', (error) => {
      if (process.listenerCount('uncaughtException') === 0) loader.fail(explain(error));
    });
    process.on('beforeExit', () => {
      if (!loader.ready) loader.failAndExit(explainSilence(loader.exported));
    });
    process.on('exit', (code) => {
      if (!loader.ready && !loader.exiting && !loader.failed) {
        loader.fail(explainExit(code));
        process.exitCode = 1;
      }
      loader.control.flush();
    });
  },

  // As `node FILE` does.
  async runFile(file) {
    const fs = require('fs');
    if (!fs.existsSync(file)) throw new StartupError(`There is no file ${file}`);
    if (isModule(file)) {
      await import(require('url').pathToFileURL(file).href);
      return;
    }
    const Module = require('module');
    try {
      loader.exported = Module._load(file, null, true);
    } catch (error) {
      // Node 22 loads an ES module with require(), unless that has a top-level await.
      if (error.code !== 'ERR_REQUIRE_ASYNC_MODULE' && error.code !== 'ERR_REQUIRE_ESM') throw error;
      await import(require('url').pathToFileURL(file).href);
    }
  },

  onLoaded() {
    if (loader.loaded || loader.failed) return;
    loader.loaded = true;
    loader.endStep('performed');
    loader.beginStep('listen');
    if (loader.listening) loader.onReady();
  },

  onListen(server) {
    if (loader.stopping === null) loader.stopping = new Stopping(server);
    server.once('listening', () => {
      loader.listening = true;
      if (loader.loaded) loader.onReady();
      else setImmediate(() => loader.onLoaded());
    });
  },

  onReady() {
    if (loader.ready || loader.failed) return;
    const { options } = loader;
    loader.endStep('performed');
    loader.ready = true;
    const address = `unix:${options.socket_dir}/${options.socket_name}`;
    const sockets = [{ address, protocol: 'http', concurrency: options.threads }];
    loader.control.send('ready', { sockets, application: options.name });
  },

  // Returns whether the supervisor has read the report.
  fail(report) {
    if (loader.ready || loader.failed) return true;
    loader.failed = true;
    if (loader.step) loader.endStep('errored');
    loader.control.send('error', report);
    return loader.control.flush();
  },

  // The supervisor prints the backtrace, once.
  failAndExit(report, error) {
    if (!loader.fail(report) && error) process.stderr.write(`${backtraceOf(error)}\n`);
    process.exit(1);
  },
};

// Whether Node takes the file for an ES module: by its extension, else by the nearest package.json.
function isModule(file) {
  if (/\.mjs$/.test(file)) return true;
  if (/\.cjs$/.test(file)) return false;
  const fs = require('fs');
  const path = require('path');
  for (let directory = path.dirname(fs.realpathSync(file)); ; directory = path.dirname(directory)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(directory, 'package.json'), 'utf8')).type === 'module';
    } catch (error) {
      if (error.code !== 'ENOENT') return false; // Node will say what is wrong with it.
    }
    if (directory === path.dirname(directory) || path.basename(directory) === 'node_modules') return false;
  }
}

module.exports = { loader };
