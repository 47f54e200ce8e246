'use strict';

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

module.exports = { Stopping };
