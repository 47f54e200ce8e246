'use strict';
// An echo by ws on /ws, socket.io with its defaults on /socket.io/, and ordinary pages beside them.
const http = require('http');
const { WebSocketServer } = require('ws');
const { Server } = require('socket.io');

const server = http.createServer((request, response) => response.end(`${process.pid}`));

const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => (offered.has('echo') ? 'echo' : false) });
server.on('upgrade', (request, socket, head) => {
  if (request.url.startsWith('/socket.io/')) return;
  if (request.url === '/refused') {
    socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused');
    return;
  }
  sockets.handleUpgrade(request, socket, head, (socket) => {
    socket.on('message', (data, binary) => {
      const text = binary ? '' : data.toString();
      if (text === 'pid') socket.send(`${process.pid}`);
      else if (text === 'bye') socket.close(4000, 'as you wish');
      else if (text === 'rude') socket.terminate();
      else socket.send(data, { binary });
    });
    socket.on('close', (code) => console.log(`ws closed ${code}`));
  });
});

const io = new Server(server, { serveClient: false });
io.on('connection', (socket) => {
  socket.on('echo', (value, answer) => answer(value, socket.conn.transport.name));
  socket.on('shout', (value) => io.emit('shouted', value));
  socket.on('disconnect', (reason) => console.log(`socket.io: ${reason}`));
});

server.listen(3000);
