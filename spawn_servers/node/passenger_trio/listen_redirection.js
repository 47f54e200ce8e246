'use strict';

// Redirects the first listen() of an http.Server to the worker's Unix socket.
//
// Knows the arguments of listen(). What follows once the server listens is in loading.js.
//
// Laws:
//
// * One server is redirected: the first. Servers of other kinds, and later ones, listen where they say.
// * A second server on the same port is a second address of the first, as for "localhost" in IPv4 and IPv6: it is told that
//   it listens. Port 0 is another port each time.
// * The application sees addresses: a Unix socket has none, and its peer is a proxy on this machine.

class ListenRedirection {
  // onListen(server): the first HTTP server is about to listen.
  // onOther(server, port): a server of another kind listens before that.
  constructor(path, onListen, onOther) {
    const { Server } = require('net');
    const http = require('http');
    this.path = path;
    this.onListen = onListen;
    this.server = null;
    this.port = undefined;
    const original = Server.prototype.listen;
    const redirection = this;
    Server.prototype.listen = function listen(...args) {
      if (!(this instanceof http.Server)) {
        if (redirection.server === null) onOther(this, portOf(args));
        return original.apply(this, args);
      }
      if (redirection.server === null || redirection.server === this) return redirection.redirect(this, args, original);
      if (redirection.port && portOf(args) === redirection.port) {
        const callback = args[args.length - 1];
        if (typeof callback === 'function') this.once('listening', callback);
        process.nextTick(() => this.emit('listening'));
        return this;
      }
      return original.apply(this, args);
    };
  }

  redirect(server, args, original) {
    this.server = server;
    this.port = portOf(args);
    server.prependListener('connection', (socket) => {
      const address = { remoteAddress: '127.0.0.1', remoteFamily: 'IPv4', remotePort: 0 };
      for (const [name, value] of Object.entries(address)) {
        Object.defineProperty(socket, name, { value, configurable: true });
      }
    });
    const callback = args[args.length - 1];
    const { signal } = Object(args[0]);
    this.onListen(server);
    const options = { path: this.path, backlog: 2048, ...(signal && { signal }) };
    return original.call(server, options, typeof callback === 'function' ? callback : undefined);
  }
}

function portOf([first]) {
  const port = first !== null && typeof first === 'object' ? first.port : first;
  return typeof port === 'number' || (typeof port === 'string' && /^\d+$/.test(port)) ? Number(port) : undefined;
}

module.exports = { ListenRedirection };
