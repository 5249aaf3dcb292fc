// Drives strophe.js over WebSocket and BOSH, as a web page of somebody else's would.
import { obey, tell } from './lines.js';
import { createRequire } from 'node:module';
import { Strophe, toStanza } from 'strophe.js';

// A browser parses XML answers by itself, and strophe.js counts on that.
const { XMLHttpRequest } = createRequire(import.meta.url)('xmlhttprequest-ssl');
globalThis.XMLHttpRequest = class extends XMLHttpRequest {
    constructor() {
        super({ xmlParser: (text) => new DOMParser().parseFromString(text, 'text/xml') });
    }
};

let connection;

function connect(jid, password) {
    connection.connect(jid, password, (status, condition) => {
        if (status === Strophe.Status.CONNECTED) {
            connection.addHandler((stanza) => { tell('stanza', Strophe.serialize(stanza)); return true; });
            tell(connection.hasResumed() ? 'resumed' : 'online', connection.jid);
        }
        if (status === Strophe.Status.AUTHFAIL || status === Strophe.Status.CONNFAIL) tell('error', condition);
        if (status === Strophe.Status.DISCONNECTED) tell('stopped');
    });
}

obey({
    start({ service, jid, password, ...options }) {
        connection = new Strophe.Connection(service, options);
        connection.xmlInput = (element) => tell('received', Strophe.serialize(element));
        connection.xmlOutput = (element) => tell('sent', Strophe.serialize(element));
        connect(jid, password);
    },
    send: (stanza) => connection.send(toStanza(stanza)),
    // The connection breaks; the page comes back, to another worker.
    lose(service, jid, password) {
        connection._proto.socket.terminate();
        connection._proto.socket.addEventListener('close', () => {
            connection.service = service;
            connect(jid, password);
        });
    },
    stop: () => connection.disconnect(),
});
