require('http'); console.log('about to'); throw new TypeError('the moon is full');
