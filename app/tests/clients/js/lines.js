// The talk with the tests: a command is a JSON array on stdin, what happens is a JSON array on stdout, a line each.
import { createInterface } from 'node:readline';
import { webcrypto } from 'node:crypto';
import { WebSocket } from 'ws';

// What browsers and newer Nodes have of themselves.
globalThis.crypto ??= webcrypto;
globalThis.WebSocket ??= WebSocket;

// Standard output is for the tests; what a library logs goes to standard error.
console.log = console.info = console.debug = console.error;

export function tell(event, data = null) {
    process.stdout.write(JSON.stringify([event, data]) + '\n');
}

export function obey(commands) {
    createInterface({ input: process.stdin }).on('line', async (line) => {
        const [name, ...rest] = JSON.parse(line);
        try {
            await commands[name](...rest);
        } catch (error) {
            tell('error', String(error?.condition ?? error?.message ?? error));
        }
    });
}
