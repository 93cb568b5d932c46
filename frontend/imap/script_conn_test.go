package imap

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// scriptPatience is how long a script waits for the server: more than it ever needs.
const scriptPatience = 20 * time.Second

// scriptConn is a connection of a script.
type scriptConn struct {
	run  *scriptRun
	name string
	lmtp bool
	conn net.Conn
	in   *bufio.Reader

	count   int
	tags    []string // of commands that are not answered, in the order sent
	waiting bool     // the first of them asked for more
	unread  []string // responses that the script has not asked for yet
	checked bool     // the script asked for some since the last command
	skip    bool     // and its last line was "…"
	ended   bool
	quiet   bool // the login, which is not told in the transcript
}

func (c *scriptConn) note(direction, text string) {
	if !c.quiet {
		c.run.note(c.name, direction, text)
	}
}

func (c *scriptConn) open(address string, implicitTLS bool) {
	conn, err := (&net.Dialer{Timeout: scriptPatience}).DialContext(c.run.t.Context(), "tcp", address)
	if err != nil {
		c.run.fatal("%v", err)
	}
	c.use(conn)
	if implicitTLS {
		c.startTLS()
	}
}

func (c *scriptConn) use(conn net.Conn) {
	c.conn, c.in = conn, bufio.NewReader(conn)
	if err := conn.SetWriteDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		c.run.fatal("%v", err)
	}
}

func (c *scriptConn) startTLS() {
	conn := tls.Client(c.conn, c.run.cluster.roots)
	if err := conn.HandshakeContext(c.run.t.Context()); err != nil {
		c.run.fatal("TLS: %v", err)
	}
	c.use(conn)
}

func (c *scriptConn) close() { _ = c.conn.Close() }

// greet reads the greeting, which has to be OK.
func (c *scriptConn) greet() {
	if got := c.next(); !strings.HasPrefix(got, "* OK ") {
		c.run.fatal("the greeting is %q", got)
	}
}

// raw sends bytes as they are.
func (c *scriptConn) raw(text string) {
	c.settle()
	c.send(text)
}

func (c *scriptConn) send(text string) {
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.note("!", err.Error()) // what the server said before it closed is still to be read
	}
}

// command sends a command, or what goes on with one that asked for more, and
// waits for its answer if wait is set.
func (c *scriptConn) command(text string, wait bool) {
	if wait {
		c.settle()
	}
	c.note(">", text)
	if c.lmtp {
		c.sendMail(text)
		return
	}
	if c.waiting {
		c.waiting = false
	} else {
		c.count++
		tag := c.name + strconv.Itoa(c.count)
		c.run.vars["tag"] = tag
		c.tags = append(c.tags, tag)
		text = tag + " " + text
	}
	tag := c.tags[len(c.tags)-1]
	if c.sendLine(text, tag) && wait {
		c.await(tag)
	}
}

// sendLine sends a line with its literals, and says whether it was taken to the end.
func (c *scriptConn) sendLine(text, tag string) bool {
	for {
		at := scriptLiteral.FindStringSubmatchIndex(text)
		if at == nil {
			c.send(text + "\r\n")
			return true
		}
		m := scriptLiteral.FindStringSubmatch(text)
		value := c.run.literal(m[2])
		c.send(fmt.Sprintf("%s%s{%d%s}\r\n", text[:at[0]], m[1], len(value), m[3]))
		text = text[at[1]:]
		if m[3] == "" {
			c.await(tag)
			if !c.waiting {
				return false
			}
			c.waiting = false
			c.unread = c.unread[:len(c.unread)-1] // the request itself
		}
		c.send(value)
	}
}

// sendMail sends a line by LMTP, or a message with the dot that ends it.
func (c *scriptConn) sendMail(text string) {
	if m := scriptLiteral.FindStringSubmatch(text); m != nil {
		text = strings.ReplaceAll("\n"+c.run.literal(m[2]), "\n.", "\n..")[1:] + "."
	}
	c.send(text + "\r\n")
}

// await reads until the command is answered, or asks for more.
func (c *scriptConn) await(tag string) {
	for {
		got := c.read()
		c.unread = append(c.unread, got)
		if strings.HasPrefix(got, "+ ") {
			c.waiting = true
			return
		}
		if len(c.tags) == 0 || c.tags[len(c.tags)-1] != tag || c.ended {
			return
		}
	}
}

// next is the next response.
func (c *scriptConn) next() string {
	if len(c.unread) > 0 {
		got := c.unread[0]
		c.unread = c.unread[1:]
		return got
	}
	return c.read()
}

var literalHeader = regexp.MustCompile(`\{(\d+)\}$`)

// endOfConn is read when there is nothing more.
const endOfConn = "the end of the connection"

// read reads a response from the connection. Its literals are written as Go
// strings in braces, and the tag of a command is left out.
func (c *scriptConn) read() string {
	if err := c.conn.SetReadDeadline(time.Now().Add(scriptPatience)); err != nil {
		c.run.fatal("%v", err)
	}
	var text strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return c.failed(text.String()+line, err)
		}
		if !strings.HasSuffix(line, "\r\n") {
			c.run.fatal("a line ends without CR: %q", line)
		}
		line = line[:len(line)-2]
		header := literalHeader.FindStringSubmatchIndex(line)
		if header == nil || c.lmtp {
			text.WriteString(line)
			return c.received(text.String())
		}
		n, err := strconv.Atoi(line[header[2]:header[3]])
		if err != nil {
			c.run.fatal("%v", err)
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.in, literal); err != nil {
			return c.failed(text.String()+line, err)
		}
		text.WriteString(line[:header[0]] + "{" + strconv.Quote(string(literal)) + "}")
	}
}

func (c *scriptConn) received(text string) string {
	if len(c.tags) > 0 {
		if rest, found := strings.CutPrefix(text, c.tags[0]+" "); found {
			c.tags = c.tags[1:]
			text = rest
		}
	}
	c.note("<", text)
	return text
}

func (c *scriptConn) failed(text string, err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.run.fatal("nothing came on %s in %s; %q is half a response", c.name, scriptPatience, text)
	}
	c.ended = true
	c.note("<", endOfConn)
	return endOfConn
}

// eof waits for the end of the connection.
func (c *scriptConn) eof() {
	if got := c.next(); got != endOfConn {
		c.run.fatal("the connection goes on with %q", got)
	}
}

// expect reads what a line of the script asks for.
func (c *scriptConn) expect(want string) {
	c.checked = true
	if want == "…" {
		c.skip = true
		return
	}
	for {
		got := c.next()
		switch {
		case c.run.match(want, got):
			c.skip = false
			return
		case got == endOfConn:
			c.run.fatal("the connection ended")
		case c.skip && !isTagged(got):
		case strings.HasPrefix(got, "+ ") && !strings.HasPrefix(want, "+"):
			// Scripts say nothing of what invites them to go on.
		default:
			c.run.fatal("got %q", got)
		}
	}
}

// isTagged says whether a response is the answer to a command.
func isTagged(response string) bool {
	return strings.HasPrefix(response, "OK ") || strings.HasPrefix(response, "NO ") || strings.HasPrefix(response, "BAD ")
}

// settle sees to it that nothing came for the last commands but what the script
// asked for, and an OK.
func (c *scriptConn) settle() {
	defer func() { c.checked, c.skip = false, false }()
	if c.lmtp || c.ended {
		return
	}
	for len(c.tags) > 0 && !c.waiting && !c.ended {
		c.unread = append(c.unread, c.read())
	}
	for _, got := range c.unread {
		switch {
		case strings.HasPrefix(got, "OK "), strings.HasPrefix(got, "+ "):
		case isTagged(got):
			c.run.fatal("before this, %s got %q", c.name, got)
		case c.checked && !c.skip:
			c.run.fatal("before this, %s also got %q", c.name, got)
		}
	}
	c.unread = nil
}
