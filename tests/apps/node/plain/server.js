'use strict';
// Node's own http, and no package.
const http = require('http');

const server = http.createServer((request, response) => {
  if (request.url === '/headers') response.end(JSON.stringify(request.headers));
  else if (request.url === '/hints') {
    response.writeEarlyHints ? response.writeEarlyHints({ link: '</style.css>; rel=preload' }) : 0;
    response.end('hinted');
  } else if (request.url === '/short') {
    response.writeHead(200, { 'Content-Length': 10 });
    response.end('short');
  } else if (request.url === '/raw') {
    request.socket.end('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab');
  } else response.end(`${request.method} ${request.url}`);
});
server.listen({ port: 8080, host: '0.0.0.0' });

// A second server is one of its own.
const metrics = http.createServer((request, response) => response.end('metrics'));
if (process.env.METRICS) metrics.listen(process.env.METRICS);
