// Calls URL with the certificate of a PKCS #12 store: over HTTP/1.1, over HTTP/2, and as a WebSocket.
// node client.js URL CA STORE PASSWORD WEBSOCKET-URL
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http2 = require('http2');
const https = require('https');

const [url, ca, store, passphrase, webSocket] = process.argv.slice(2);
const identity = { ca: fs.readFileSync(ca), pfx: fs.readFileSync(store), passphrase };

function overHTTP1(agent) {
  return new Promise((resolve, reject) => {
    const request = https.request(url, { agent, method: 'POST' }, (response) => {
      let body = '';
      response.on('data', (part) => { body += part; });
      response.on('end', () => resolve(`HTTP/1.1 ${response.statusCode} ${body.trim()}`));
    });
    request.on('error', reject);
    request.end('from Node');
  });
}

function overHTTP2() {
  return new Promise((resolve, reject) => {
    const session = http2.connect(url, identity);
    session.on('error', reject);
    const stream = session.request({ ':path': new URL(url).pathname, ':method': 'POST' });
    let status = 0;
    let body = '';
    stream.on('response', (headers) => { status = headers[':status']; });
    stream.on('data', (part) => { body += part; });
    stream.on('end', () => { session.close(); resolve(`HTTP/2 ${status} ${body.trim()}`); });
    stream.on('error', reject);
    stream.end('from Node');
  });
}

// RFC 6455, for texts of less than 126 bytes.
function overWebSocket(agent) {
  return new Promise((resolve, reject) => {
    const key = crypto.randomBytes(16).toString('base64');
    const request = https.request(webSocket, {
      agent,
      headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': key, 'Sec-WebSocket-Version': '13' },
    });
    request.on('error', reject);
    request.on('response', (response) => reject(new Error(`no upgrade: ${response.statusCode}`)));
    request.on('upgrade', (response, socket) => {
      const want = crypto.createHash('sha1').update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
      if (response.headers['sec-websocket-accept'] !== want) {
        reject(new Error('the key was not accepted'));
      }
      const mask = crypto.randomBytes(4);
      const text = Buffer.from('from Node').map((byte, i) => byte ^ mask[i % 4]);
      socket.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length]), mask, text]));
      let got = Buffer.alloc(0);
      socket.on('data', (part) => {
        got = Buffer.concat([got, part]);
        if (got.length >= 2 && got.length >= 2 + got[1]) {
          socket.destroy();
          resolve(`WebSocket ${response.statusCode} ${got.subarray(2, 2 + got[1])}`);
        }
      });
    });
    request.end();
  });
}

(async () => {
  const agent = new https.Agent({ ...identity, keepAlive: true });
  console.log(await overHTTP1(agent));
  console.log(await overHTTP1(agent));
  console.log(await overHTTP2());
  if (webSocket) {
    console.log(await overWebSocket(agent));
  }
  agent.destroy();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
