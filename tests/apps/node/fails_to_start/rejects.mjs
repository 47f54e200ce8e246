import http from 'http'; await Promise.reject(new Error('the database is away'));
