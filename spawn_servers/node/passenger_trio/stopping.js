'use strict';

// Stopping: the requests in hand are finished, then the process exits.
//
// Knows the server's connections, and which of them have a request. When each step is due is in loading.js.
//
// Laws:
//
// * A request is in hand when any byte of it was sent before the stop, also if it waits in the kernel.
// * A request is over with its response, also if the rest of its body comes later. What follows a whole request is the
//   next head.
// * Nothing changes for the application before the stop. We add no listeners for requests: Node acts differently where an
//   event has one.

class Stopping {
  constructor(server) {
    this.server = server;
    this.begun = false;
    this.onClosed = null; // to be called when the server has closed
    this.searching = false;
    this.accepted = false; // a connection, since the last look
    // Socket -> its newest request: busy; wholeAt: bytesRead when the request was whole, or -1; seen: bytesRead at the last look.
    this.sockets = new Map();
    server.on('connection', (socket) => {
      this.accepted = true;
      this.sockets.set(socket, { busy: false, wholeAt: 0, seen: 0 });
      socket.on('close', () => this.sockets.delete(socket));
    });
    const { emit, close, closeIdleConnections } = server;
    const stopping = this;
    server.emit = function emitAndCount(event, request, response) {
      if (event === 'request') stopping.onRequest(request, response);
      else if (event === 'upgrade' || event === 'connect') stopping.sockets.set(request.socket, { busy: true });
      return emit.apply(this, arguments);
    };
    // Many applications close their server at SIGTERM. Node would close connections whose request waits to be read.
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

  onRequest(request, response) {
    const { socket } = request;
    if (!this.sockets.has(socket)) return; // The application emitted this request itself.
    const session = { busy: true, wholeAt: -1, seen: -1 };
    this.sockets.set(socket, session);
    const isWhole = () => { session.wholeAt = socket.bytesRead; };
    process.nextTick(() => (request.complete ? isWhole() : request.once('close', isWhole)));
    response.on('close', () => {
      // The client may have the whole response long before this event, so the next request may be here.
      session.busy = false;
      if (this.begun) this.closeWhenQuiet();
    });
  }

  // Finish what is in hand; then call onClosed.
  begin(onClosed) {
    if (this.begun) return;
    this.begun = true;
    this.onClosed = onClosed;
    this.closeWhenQuiet();
  }

  // A turn of the event loop accepts one connection and reads one block of each. After two turns in which nothing arrived,
  // everything that was sent before is here.
  closeWhenQuiet() {
    if (this.searching) return;
    this.searching = true;
    let quietTurns = 0;
    const turn = () => {
      quietTurns = this.hasNews() ? 0 : quietTurns + 1;
      if (quietTurns < 2) {
        setImmediate(turn);
        return;
      }
      this.searching = false;
      const { onClosed } = this;
      this.onClosed = null;
      // net.Server's close: that of http.Server (Node 19 and newer) also ends connections whose response is not sent yet.
      if (onClosed) require('net').Server.prototype.close.call(this.server, () => onClosed());
      this.closeIdle();
    };
    setImmediate(turn);
  }

  // Whether anything arrived since the last call.
  hasNews() {
    let found = this.accepted;
    this.accepted = false;
    for (const [socket, session] of this.sockets) {
      if (session.busy || session.seen === socket.bytesRead) continue;
      session.seen = socket.bytesRead;
      found = true;
    }
    return found;
  }

  // Destroy the connections of the requests that still run.
  cancel() {
    for (const [socket, { busy }] of this.sockets) if (busy) socket.destroy();
  }

  closeIdle() {
    for (const [socket, { busy, wholeAt }] of this.sockets) {
      if (!busy && (wholeAt === -1 || wholeAt === socket.bytesRead)) socket.destroy();
    }
  }
}

module.exports = { Stopping };
