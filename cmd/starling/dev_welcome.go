package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"starling/frontend/mailstore"
)

// welcomeMails are what a new cluster's accounts find in their INBOX.
var welcomeMails = []struct{ subject, text string }{
	{"Welcome to Starling", "This mail is kept as an object; what you see in the list comes from PostgreSQL.\n" +
		"Open the other node beside this one: whatever you do here shows there at once.\n"},
	{"Two nodes, one mailbox", "Put one client into IDLE on one node and flag this mail on the other.\n" +
		"No user is bound to a node: stop one, and go on with the other.\n"},
	{"What to try next", "- Deliver mail by LMTP: swaks --to alice@example.org --server 127.0.0.1:1124 --protocol LMTP\n" +
		"- Send mail to alice+Archive@example.org: it goes to the mailbox of that name.\n"},
}

// welcome delivers the welcome mails to all accounts.
func welcome(ctx context.Context, n *node) error {
	for _, name := range devAccounts {
		account, _, err := n.store.Recipient(ctx, name)
		if err != nil {
			return fmt.Errorf("welcome %s: %w", name, err)
		}
		for i, mail := range welcomeMails {
			if err := deliverWelcome(ctx, account, name, i, mail.subject, mail.text); err != nil {
				account.Close()
				return fmt.Errorf("welcome %s: %w", name, err)
			}
		}
		account.Close()
	}
	return nil
}

func deliverWelcome(ctx context.Context, account *mailstore.Account, to string, i int, subject, text string) error {
	upload, err := account.Upload(ctx, mailstore.Incoming{Mailbox: mailstore.Inbox}, 0)
	if err != nil {
		return err
	}
	defer upload.Discard()
	mail := fmt.Sprintf("From: Starling <starling@%s>\nTo: %s\nSubject: %s\nDate: %s\nMessage-ID: <welcome-%d@%s>\n"+
		"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n%s",
		devDomain, to, subject, time.Now().Format(time.RFC1123Z), i+1, devDomain, text)
	if _, err := io.WriteString(upload, strings.ReplaceAll(mail, "\n", "\r\n")); err != nil {
		return err
	}
	_, err = upload.Append(ctx, nil)
	return err
}
