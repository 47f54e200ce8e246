import http from 'http'; export default 1;
