// Drives @xmpp/client: TCP, TLS and WebSocket, SASL2, Bind 2, FAST, stream management, reconnection are all its own.
import { obey, tell } from './lines.js';
import { client } from '@xmpp/client';
import parse from '@xmpp/xml/lib/parse.js';

let xmpp;

obey({
    start(options) {
        xmpp = client(options);
        xmpp.reconnect.delay = 50;
        xmpp.on('online', (jid) => tell('online', String(jid)));
        xmpp.streamManagement.on('resumed', () => tell('resumed', String(xmpp.jid)));
        xmpp.streamManagement.on('ack', (stanza) => tell('acked', stanza.attrs.id));
        xmpp.streamManagement.on('fail', (stanza) => tell('unsent', stanza.attrs.id));
        xmpp.on('stanza', (stanza) => tell('stanza', String(stanza)));
        xmpp.on('nonza', (nonza) => tell('received', String(nonza)));
        xmpp.on('send', (element) => tell('sent', String(element)));
        xmpp.on('error', (error) => tell('error', String(error.condition ?? error.message)));
        xmpp.start().catch(() => {});  // the event says it as well
    },
    send: (stanza) => xmpp.send(parse(stanza)),
    // The connection breaks; the library comes back by itself, to another worker.
    lose(service) {
        xmpp.options.service = service;
        const socket = xmpp.socket.socket;
        socket.terminate ? socket.terminate() : socket.destroy();
    },
    // Goes and comes again with what the library remembers: its FAST token.
    async again(service) {
        await xmpp.stop();
        xmpp.options.service = service;
        await xmpp.start();
    },
    async stop() {
        await xmpp.stop();
        tell('stopped');
    },
});
