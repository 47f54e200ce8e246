import http from 'http'; import './there_is_no_such.mjs';
