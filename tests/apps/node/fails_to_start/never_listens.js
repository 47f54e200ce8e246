const http = require('http'); setInterval(() => {}, 1000); console.log('busy with other things');
