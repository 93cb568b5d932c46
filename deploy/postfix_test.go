package deploy_test

import (
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// postfix is a Postfix of the test's own, with the example's settings.
type postfix struct {
	*process
	address string // for SMTP
}

// What a Postfix needs that shares nothing with the machine's; the example is appended to it.
const (
	mainCF = `
compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
daemon_directory = DAEMONS
command_directory = COMMANDS
maillog_file = /dev/stdout
myhostname = mx.example.net
mydestination =
mynetworks = 127.0.0.2/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
address_verify_poll_delay = 1s
lmtp_tls_loglevel = 1
`
	masterCF = `
ADDRESS inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`
)

// startPostfix starts Postfix, which hands mail for example.org to LMTP at that address.
func startPostfix(t *testing.T, lmtp string) *postfix {
	t.Helper()
	program := need(t, "postfix")
	if os.Getuid() != 0 {
		t.Skip("Postfix has to be started by root")
	}
	dir := publicDir(t)
	config := filepath.Join(dir, "etc")
	for _, sub := range []string{"etc", "spool", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "data"), uid, -1); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(lmtp)
	if err != nil {
		t.Fatal(err)
	}
	p := &postfix{address: freeAddress(t)}
	daemons := strings.TrimSpace(run(t, "postconf", "-d", "-h", "daemon_directory"))
	fill := strings.NewReplacer("DIR", dir, "DAEMONS", daemons, "COMMANDS", filepath.Dir(program), "ADDRESS", p.address)
	put(t, filepath.Join(config, "main.cf"), fill.Replace(mainCF)+
		replace(t, read(t, "postfix/main.cf"), "inet:[mail.internal]:24", "inet:["+host+"]:"+port))
	put(t, filepath.Join(config, "master.cf"), fill.Replace(masterCF)+read(t, "postfix/master.cf"))
	// Settings that Postfix does not know are ones with a mistake in their name.
	if said := run(t, "postconf", "-c", config); strings.Contains(said, "unused parameter") || strings.Contains(said, "undefined parameter") {
		t.Error(said)
	}
	p.process = start(t, exec.Command(program, "-c", config, "start-fg"))
	t.Cleanup(func() { // its master is in a session of its own, where no signal to its parent reaches it
		if out, err := exec.Command(program, "-c", config, "stop").CombinedOutput(); err != nil {
			t.Errorf("postfix stop: %v\n%s", err, out)
		}
	})
	p.await(`daemon started`)
	return p
}

// offer is a client's side of SMTP up to RCPT.
func (p *postfix) offer(t *testing.T, to string) (*smtp.Client, error) {
	t.Helper()
	client, err := smtp.Dial(p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() }) // it may have ended
	if err := client.Hello("client.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := client.Mail("sender@example.net"); err != nil {
		t.Fatal(err)
	}
	return client, client.Rcpt(to)
}

// send hands a mail to Postfix.
func (p *postfix) send(t *testing.T, to, mail string) {
	t.Helper()
	client, err := p.offer(t, to)
	if err != nil {
		t.Fatal(err)
	}
	data, err := client.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := data.Write([]byte(mail)); err != nil {
		t.Fatal(err)
	}
	if err := data.Close(); err != nil {
		t.Fatal(err)
	}
	if err := client.Quit(); err != nil {
		t.Fatal(err)
	}
}
