// A Fastify application, an ES module that waits at its top level; "localhost" is two addresses to it.
import Fastify from 'fastify';

const fastify = Fastify({ logger: true });

fastify.get('/', async () => ({ hello: 'fastify' }));
fastify.post('/json', async (request, reply) => reply.code(201).send({ got: request.body }));
fastify.addHook('onClose', async () => console.log('fastify was closed'));

process.on('SIGTERM', () => fastify.close());
await fastify.listen({ port: 3000, host: 'localhost' });
console.log('it goes on after listen()');
