"""Python's own IMAP client on two nodes: python3 with_imaplib.py CERT USER PASSWORD PORT PORT."""

import imaplib
import ssl
import sys
import time

cert, user, password, one, two = sys.argv[1:]
context = ssl.create_default_context(cafile=cert)
a = imaplib.IMAP4_SSL("localhost", int(one), ssl_context=context)
a.login(user, password)
b = imaplib.IMAP4("localhost", int(two))
b.starttls(context)
b.authenticate("PLAIN", lambda _: b"\0" + user.encode() + b"\0" + password.encode())


def ok(answer):
    kind, data = answer
    assert kind == "OK", answer
    return data


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


mail = b"From: Zo\xc3\xab <z@example.org>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 2 Feb 2026 03:04:05 +0100\r\n\r\nThe text.\r\n"
when = imaplib.Time2Internaldate(1770000000)
ok(a.create('"Old &AOk-t&AOk-"'))
for flags in ("", r"(\Seen)", r"(\Flagged $Forwarded)"):
    ok(a.append('"Old &AOk-t&AOk-"', flags, when, mail))

# What one node did, the other shows.
same(ok(b.select('"Old &AOk-t&AOk-"')), [b"3"])
same(ok(b.uid("SEARCH", None, "UNSEEN")), [b"1 3"])
b.literal = "Grüße".encode()
same(ok(b.uid("SEARCH", "CHARSET", "UTF-8", "SUBJECT")), [b"1 2 3"])
data = ok(b.uid("FETCH", "3", "(FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"))
same(data[0][1], mail)
assert b"\\Flagged" in data[0][0] + data[1] and b"$Forwarded" in data[0][0] + data[1], data
same(time.mktime(imaplib.Internaldate2tuple(data[0][0] + data[1])), 1770000000.0)

# A text that is empty is a text, and comes as one.
for text, head in ((b"", b""), (b"Subject: no text\r\n\r\n", b"Subject: no text\r\n\r\n")):
    ok(a.append("Drafts", "", when, text))
    ok(b.select("Drafts", readonly=True))
    for item, want in (("BODY.PEEK[]", text), ("BODY.PEEK[TEXT]", b""), ("RFC822.HEADER", head), ("BINARY.PEEK[1]", b"")):
        same(ok(b.fetch("*", f"({item})"))[0][1], want)
same(ok(b.select('"Old &AOk-t&AOk-"')), [b"3"])

# Changes on one, seen on the other by NOOP.
same(ok(a.select('"Old &AOk-t&AOk-"')), [b"3"])
ok(b.store("1", "+FLAGS", r"(\Answered)"))
ok(b.store("2", "+FLAGS.SILENT", r"(\Deleted)"))
same(ok(b.expunge()), [b"2"])
ok(b.append('"Old &AOk-t&AOk-"', "", when, mail))
ok(a.noop())
same(a.response("EXPUNGE")[1], [b"2"])
same(a.response("EXISTS")[1][-1], b"3")
assert b"\\Answered" in ok(a.fetch("1", "(FLAGS)"))[0]

# COPY, and MOVE as a command that imaplib does not know.
ok(a.copy("1:2", "Archive"))
imaplib.Commands.setdefault("MOVE", ("SELECTED",))
ok(a.uid("MOVE", "4", "Trash"))
same(ok(b.status("Archive", "(MESSAGES UNSEEN)")), [b"Archive (MESSAGES 2 UNSEEN 2)"])
same(ok(b.status("Trash", "(MESSAGES)")), [b"Trash (MESSAGES 1)"])
ok(b.noop())
same(ok(b.uid("SEARCH", None, "ALL")), [b"1 3"])

ok(a.rename("Archive", "Attic"))
ok(a.subscribe("Attic"))
assert any(b"Attic" in line for line in ok(b.lsub()))
same(ok(b.namespace()), [b'(("" "/")) NIL NIL'])
ok(a.close())
ok(a.delete("Attic"))
same(b.select("Attic")[0], "NO")
for client in (a, b):
    same(client.logout()[0], "BYE")
print("well")
