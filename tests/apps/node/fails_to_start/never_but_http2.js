// Fault 27: it speaks HTTP/2 and nothing else. (Nobody is there before it: the port may be taken.)
require('http2').createServer((request, response) => response.end('hello')).on('error', () => {}).listen(3000);
setInterval(() => {}, 1000);
