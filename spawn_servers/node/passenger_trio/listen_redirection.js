'use strict';

// Redirection: the first listen() of an HTTP server.

class Redirection {
  constructor(path, listened, tell) {
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
        if (redirection.server === null) hintAt(tell, this, portOf(args));
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
function hintAt(tell, server, port) {
  const kind = { Http2Server: 'HTTP/2', Http2SecureServer: 'HTTP/2 with TLS', Server: 'TLS' }[server.constructor.name];
  if (!kind || (kind === 'TLS' && !(server instanceof require('tls').Server))) return;
  const where = port === undefined ? '' : ` on port ${port}`;
  tell('event', {
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

module.exports = { Redirection };
