require('http'); console.log('so long'); process.exit(0);
