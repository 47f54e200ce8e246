const cluster = require('cluster');
const http = require('http');
if (cluster.isPrimary) cluster.fork();
else http.createServer((request, response) => response.end('x')).listen(0);
