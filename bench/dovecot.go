package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// dovecot is a running Dovecot.
type dovecot struct {
	*process
	version string
	at      map[string]string // where it listens, as of a node
}

// dovecotConfig is what favours Dovecot and is sane: no syncing but what mail_fsync=optimized asks for, which is the default
// (sdbox syncs a message that it stores, and no flag); no TLS but where it is measured, no waiting after a login that
// failed, no limits that are reached; processes that are there before they are needed, and serve again: by default each
// login and each session begins with a new process. PLAIN passwords cost nothing to verify.
const dovecotConfig = `
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/run
log_path = {{.Dir}}/log
protocols = imap lmtp
listen = 127.0.0.1
default_internal_user = {{.Internal}}
default_internal_group = {{.Group}}
default_login_user = {{.Login}}
default_client_limit = 20000
default_process_limit = 2000
default_vsz_limit = 0
first_valid_uid = 1

ssl = yes
ssl_cert = <{{.Cert}}
ssl_key = <{{.Key}}
disable_plaintext_auth = no
auth_mechanisms = plain
auth_failure_delay = 0
passdb {
  driver = static
  args = password={{.Password}}
}
userdb {
  driver = static
  args = uid={{.UID}} gid={{.GID}} home={{.Dir}}/mail/%n allow_all_users=yes
}

mail_location = sdbox:{{.Dir}}/mail/%n
mail_fsync = optimized
mail_max_userip_connections = 0
namespace inbox {
  inbox = yes
}
lmtp_save_to_detail_mailbox = no
protocol lmtp {
  postmaster_address = postmaster@example.org
}

service imap-login {
  chroot =
  service_count = 0
  process_min_avail = {{.Cores}}
  process_limit = {{.Cores}}
  client_limit = 10000
  inet_listener imap {
    port = {{index .Ports "IMAP"}}
  }
  inet_listener imaps {
    port = {{index .Ports "IMAPS"}}
    ssl = yes
  }
}
service imap {
  user = {{.Mail}}
  service_count = 100000
  process_min_avail = 8
  process_limit = 2000
}
service lmtp {
  user = {{.Mail}}
  service_count = 100000
  process_min_avail = 8
  inet_listener lmtp {
    address = 127.0.0.1
    port = {{index .Ports "LMTP"}}
  }
}
service auth {
  user = {{.Internal}}
  unix_listener auth-userdb {
    mode = 0666
  }
}
service auth-worker {
  user = {{.Internal}}
}
service anvil {
  chroot =
}
service stats {
  chroot =
  unix_listener stats-writer {
    mode = 0666
  }
}
`

// errNoDovecot says that there is none, or one that is not known.
var errNoDovecot = errors.New("Dovecot 2.3 is not installed: deploy/setup bench does that on Debian 12; -server starling measures without it") //nolint:staticcheck // a name

// findDovecot finds the program, and its version.
func findDovecot(ctx context.Context) (path, version string, err error) {
	path, err = exec.LookPath("dovecot")
	if err != nil {
		path = "/usr/sbin/dovecot" // where only root's PATH leads
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", errNoDovecot, err)
	}
	version, _, _ = strings.Cut(string(out), " ")
	if !strings.HasPrefix(version, "2.3.") {
		return "", "", fmt.Errorf("%w: there is %s", errNoDovecot, version)
	}
	return path, version, nil
}

// startDovecot starts Dovecot with its mail below dir. As root it runs as Debian's users for it, and for mail
// as "mail"; else all is done by whoever started this program.
func startDovecot(ctx context.Context, dir string, cores int) (*dovecot, error) {
	path, version, err := findDovecot(ctx)
	if err != nil {
		return nil, err
	}
	values := map[string]any{"Dir": dir, "Password": password, "Cores": cores}
	self, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("start Dovecot: %w", err)
	}
	group, err := user.LookupGroupId(self.Gid)
	if err != nil {
		return nil, fmt.Errorf("start Dovecot: %w", err)
	}
	values["Internal"], values["Group"], values["Login"] = self.Username, group.Name, self.Username
	if os.Geteuid() == 0 {
		values["Internal"], values["Group"], values["Login"] = "dovecot", "dovecot", "dovenull"
		if self, err = user.Lookup("mail"); err != nil {
			return nil, fmt.Errorf("start Dovecot: %w", err)
		}
	}
	values["Mail"], values["UID"], values["GID"] = self.Username, self.Uid, self.Gid
	d := &dovecot{version: version}
	if d.at, err = freePorts("IMAP", "IMAPS", "LMTP"); err != nil {
		return nil, err
	}
	ports := make(map[string]string)
	for what, address := range d.at {
		_, ports[what], _ = net.SplitHostPort(address) // the system wrote it
	}
	values["Ports"] = ports
	if values["Cert"], values["Key"], err = certificate(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	config, err := d.prepare(dir, self, values)
	if err != nil {
		return nil, fmt.Errorf("start Dovecot: %w", err)
	}
	if d.process, err = start("dovecot", []string{"PATH=" + os.Getenv("PATH")}, path, "-F", "-c", config); err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log")) // what there is helps
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, log), d.end())
	}
	return d, nil
}

// prepare makes the folders and the configuration.
func (d *dovecot) prepare(dir string, mail *user.User, values map[string]any) (config string, err error) {
	folder := filepath.Join(dir, "mail")
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // Dovecot's users pass through
		return "", err
	}
	if os.Geteuid() == 0 {
		uid, gid := number(mail.Uid), number(mail.Gid)
		if err := os.Chown(folder, uid, gid); err != nil {
			return "", err
		}
	}
	config = filepath.Join(dir, "dovecot.conf")
	f, err := os.Create(config)
	if err != nil {
		return "", err
	}
	err = template.Must(template.New("").Parse(dovecotConfig)).Execute(f, values)
	return config, errors.Join(err, f.Close())
}

// ready waits until both protocols answer.
func (d *dovecot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for _, what := range []string{"IMAP", "LMTP"} {
		for {
			err := greeted(ctx, d.at[what])
			if err == nil {
				break
			}
			select {
			case <-d.done:
				said, _ := d.said.next()
				return fmt.Errorf("Dovecot ended: %s", said) //nolint:staticcheck // a name
			case <-ctx.Done():
				return fmt.Errorf("Dovecot does not get ready: %w", err) //nolint:staticcheck // a name
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// greeted connects, and wants to be greeted.
func greeted(ctx context.Context, address string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // it was only read
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// freePorts are addresses of loopback that nobody listens on now.
func freePorts(names ...string) (map[string]string, error) {
	at := make(map[string]string)
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // all at the end, so that they differ
		at[name] = l.Addr().String()
	}
	return at, nil
}
