require('http');
const x = {;
