require('http'); require('left-pad-of-the-future');
