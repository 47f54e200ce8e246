// An Express application as its documentation writes one; nothing in it knows of a supervisor.
const crypto = require('crypto');
const express = require('express');

const app = express();
app.set('trust proxy', 'loopback');
app.use(express.json());

app.get('/', (request, response) => response.send('hello from express'));
app.get('/about', (request, response) => {
  response.json({ ip: request.ip, protocol: request.protocol, host: request.hostname, env: app.get('env'), pid: process.pid, port: process.env.PORT || null });
});
app.post('/json', (request, response) => response.status(201).json({ got: request.body }));
app.post('/upload', (request, response) => {
  const hash = crypto.createHash('sha256');
  request.on('data', (piece) => hash.update(piece)).on('end', () => response.type('text').send(hash.digest('hex')));
});
app.get('/stream', async (request, response) => {
  for (const piece of ['one ', 'two ', 'three']) {
    response.write(piece);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  response.end();
});
app.get('/events', (request, response) => {
  response.type('text/event-stream');
  let number = 0;
  const timer = setInterval(() => response.write(`data: ${number++}\n\n`), 5);
  response.on('close', () => {
    clearInterval(timer);
    console.log('an event stream was closed');
  });
});
app.get('/slow/:milliseconds', (request, response) => setTimeout(() => response.send('slow'), Number(request.params.milliseconds)));
app.get('/throws', () => { throw new Error('the route is broken'); });
app.get('/exit', () => process.exit(5));
app.get('/spin', () => { for (;;); });

const server = app.listen(process.env.PORT || 3000, () => console.log('listening on', server.address()));
