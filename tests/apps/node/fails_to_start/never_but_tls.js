// Fault 27's kin: TLS ends before the application.
require('https').createServer({}, (request, response) => response.end('hello')).on('error', () => {}).listen(3001);
setInterval(() => {}, 1000);
