require('http'); new Promise((resolve, reject) => setTimeout(() => reject(new Error('the database is away')), 20));
