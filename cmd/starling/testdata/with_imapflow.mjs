// imapflow, the library of much Node software, on two nodes:
// node with_imapflow.mjs LIBRARY CERT USER PASSWORD PORT PORT
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [library, cert, user, pass, ...ports] = process.argv.slice(2);
const { ImapFlow } = createRequire(import.meta.url)(library);
const connect = async (port, options = {}) => {
	const client = new ImapFlow({
		host: 'localhost', port: Number(port), secure: true, tls: { ca: readFileSync(cert) },
		auth: { user, pass }, logger: false, ...options,
	});
	client.on('error', err => { console.error(err); process.exit(1); });
	await client.connect();
	return client;
};
const all = async sequence => { const list = []; for await (const item of sequence) list.push(item); return list; };
const next = async (emitter, name, good = () => true) => {
	for (;;) {
		const [event] = await once(emitter, name, { signal: AbortSignal.timeout(60_000) });
		if (good(event)) return event;
	}
};
const mail = n => `From: a@example.org\r\nTo: b@example.org\r\nSubject: Number ${n}\r\n\r\nText ${n}\r\n`;

const reader = await connect(ports[0], { qresync: true });
const writer = await connect(ports[1]);
for (const name of ['CONDSTORE', 'IDLE', 'UIDPLUS', 'MOVE']) assert.ok(reader.capabilities.has(name), name);
assert.ok(reader.enabled.has('QRESYNC'), 'QRESYNC is not enabled');

// Mailboxes, and mail of one node on the other.
await writer.mailboxCreate(['Projects', 'Grüße']);
const listed = await reader.list();
assert.ok(listed.some(box => box.path === 'Projects/Grüße'), JSON.stringify(listed));
assert.equal(listed.find(box => box.specialUse === '\\Trash').path, 'Trash');
for (let n = 1; n <= 5; n++) {
	const done = await writer.append('INBOX', mail(n), n === 1 ? ['\\Seen'] : []);
	assert.equal(done.uid, n);
}
const inbox = await reader.mailboxOpen('INBOX');
assert.equal(inbox.exists, 5);
assert.ok(inbox.highestModseq > 0n);
const before = inbox.highestModseq;
const messages = await all(reader.fetch('1:*', { uid: true, flags: true, envelope: true, bodyStructure: true, source: true, size: true, internalDate: true }));
assert.deepEqual(messages.map(m => m.envelope.subject), [1, 2, 3, 4, 5].map(n => `Number ${n}`));
assert.equal(messages[4].source.toString(), mail(5));
assert.equal(messages[4].bodyStructure.type, 'text/plain');
assert.deepEqual(await reader.search({ seen: false }, { uid: true }), [2, 3, 4, 5]);

// IDLE: new mail, flags and expunges of the other node come by themselves.
await writer.mailboxOpen('INBOX');
const idling = reader.idle();
let event = next(reader, 'exists');
await writer.append('INBOX', mail(6));
assert.equal((await event).count, 6);
event = next(reader, 'flags', e => e.seq === 2);
await writer.messageFlagsAdd('2', ['\\Flagged', 'work'], { uid: true });
const flags = await event;
assert.ok(flags.flags.has('\\Flagged') && flags.flags.has('work'));
event = next(reader, 'expunge');
await writer.messageDelete('3', { uid: true });
event = await event;
assert.equal(event.vanished, true); // QRESYNC is enabled
assert.equal(event.uid, 3);

// CONDSTORE: what changed since, and a change that comes too late.
const changed = await all(reader.fetch('1:*', { uid: true, flags: true }, { changedSince: before }));
await idling;
assert.deepEqual(changed.map(m => m.uid), [2, 6]);
assert.ok(changed.every(m => m.modseq > before));
const late = await writer.messageFlagsAdd('2', ['\\Answered'], { uid: true, unchangedSince: before });
const now = await reader.fetchOne('2', { flags: true }, { uid: true });
assert.ok(!now.flags.has('\\Answered'), `UNCHANGEDSINCE was passed over: ${late}`);

// MOVE and COPY with the UIDs that came of it; a download of a part.
const moved = await writer.messageMove('4', 'Projects/Grüße', { uid: true });
assert.deepEqual([...moved.uidMap], [[4, 1]]);
const copied = await writer.messageCopy('1:2', 'Archive', { uid: true });
assert.equal(copied.uidMap.size, 2);
const { content } = await reader.download('5', '1', { uid: true });
assert.equal(Buffer.concat(await all(content)).toString(), 'Text 5\r\n');
const status = await reader.status('Projects/Grüße', { messages: true, highestModseq: true });
assert.equal(status.messages, 1);
await reader.logout();

// QRESYNC: a client that comes back is told what it missed.
const gone = [];
const back = await connect(ports[0], { qresync: true });
back.on('expunge', e => gone.push(e.uid));
await back.mailboxOpen('INBOX', { qresync: true, changedSince: before, uidValidity: inbox.uidValidity });
assert.deepEqual(gone, [3, 4]);
assert.deepEqual(await back.search({ all: true }, { uid: true }), [1, 2, 5, 6]);
await back.logout();
await writer.mailboxDelete('Projects/Grüße');
await writer.logout();
console.log('well');
