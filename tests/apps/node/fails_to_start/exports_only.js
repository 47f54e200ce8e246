const http = require('http'); module.exports = (request, response) => response.end('x');
