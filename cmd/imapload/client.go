package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// client is a connection to an IMAP server. It belongs to one goroutine. It knows no
// more of IMAP than what it measures needs, so that the time is the server's.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	timeout time.Duration
	tag     int
	plus    bool // literals need not be waited for (LITERAL+)
	line    []byte
	whole   []byte // of the last answer that was read by swallow
}

// response is an untagged response; where its line has {n}, the next literal stands.
// Both are valid until the next one is read.
type response struct {
	line     []byte
	literals [][]byte
}

// maxLiteral bounds what a server may make this program read into memory.
const maxLiteral = 256 << 20

// connect opens connection number n, to the node whose turn it is.
func (b *bench) connect(ctx context.Context, n int) (*client, error) {
	address := b.cfg.addrs[n%len(b.cfg.addrs)]
	ctx, cancel := context.WithTimeout(ctx, b.cfg.timeout)
	defer cancel()
	var dialer net.Dialer
	if own := b.cfg.sources; len(own) > 0 {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(own[n%len(own)])}
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if b.cfg.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // nothing secret is sent, and test servers sign their own
	}
	c := &client{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10), timeout: b.cfg.timeout}
	if err := conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, c.fail(err)
	}
	greeting, err := c.next()
	if err != nil {
		return nil, c.fail(err)
	}
	if !bytes.HasPrefix(greeting.line, []byte("* OK")) {
		return nil, c.fail(fmt.Errorf("greeting is %q", greeting.line))
	}
	return c, nil
}

// user is the name of an account.
func (b *bench) user(n int) string { return strings.ReplaceAll(b.cfg.user, "%d", strconv.Itoa(n)) }

// enter opens connection number n as a user, with a mailbox selected if one is named.
func (b *bench) enter(ctx context.Context, n, user int, mailbox string) (*client, error) {
	c, err := b.connect(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := c.ok(fmt.Sprintf("LOGIN %q %q", b.user(user), b.cfg.password)); err != nil {
		return nil, c.fail(err)
	}
	err = c.command("CAPABILITY", func(r response) error {
		c.plus = c.plus || slices.Contains(strings.Fields(string(r.line)), "LITERAL+")
		return nil
	})
	if err == nil && mailbox != "" {
		err = c.ok("SELECT " + mailbox)
	}
	if err != nil {
		return nil, c.fail(err)
	}
	return c, nil
}

// fail closes the connection and returns err.
func (c *client) fail(err error) error {
	_ = c.conn.Close() // there is an error to tell already
	return err
}

// close says goodbye.
func (c *client) close() error {
	err := c.ok("LOGOUT")
	return errors.Join(err, c.conn.Close())
}

// ok runs a command and passes over what comes untagged.
func (c *client) ok(text string) error {
	return c.command(text, func(response) error { return nil })
}

// command runs a command, each of whose untagged responses is given to each, and wants
// OK. An error of each is returned when the command has ended.
func (c *client) command(text string, each func(response) error) error {
	if err := c.begin(text); err != nil {
		return err
	}
	return c.finish(each)
}

// begin sends a command.
func (c *client) begin(text string) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return fmt.Errorf("%w: %w", errStop, err)
	}
	c.tag++
	fmt.Fprintf(c.out, "t%d %s\r\n", c.tag, text)
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errStop, err)
	}
	return nil
}

// finish reads until the last command that was begun has ended.
func (c *client) finish(each func(response) error) error {
	tag := fmt.Appendf(nil, "t%d ", c.tag)
	var wrong error
	for {
		r, err := c.next()
		if err != nil {
			return fmt.Errorf("%w: %w", errStop, err)
		}
		if rest, ok := bytes.CutPrefix(r.line, tag); ok {
			if !bytes.HasPrefix(rest, []byte("OK")) {
				return fmt.Errorf("the server said %q", rest)
			}
			return wrong
		}
		if err := each(r); err != nil && wrong == nil {
			wrong = err
		}
	}
}

// swallow runs a command and reads its whole answer without a look at it, so that the time is the
// server's even where it says very much; digest has the look.
func (c *client) swallow(text string) error {
	if err := c.begin(text); err != nil {
		return err
	}
	tag := fmt.Appendf(nil, "t%d ", c.tag)
	for c.whole = c.whole[:0]; ; {
		c.whole = slices.Grow(c.whole, 64<<10)
		n, err := c.in.Read(c.whole[len(c.whole):cap(c.whole)])
		c.whole = c.whole[:len(c.whole)+n]
		if err != nil {
			return fmt.Errorf("%w: %w", errStop, err)
		}
		// After its end the server waits for the next command: so the end is at the end of what there is.
		if rest, ok := bytes.CutSuffix(c.whole, []byte("\r\n")); ok && bytes.HasPrefix(rest[bytes.LastIndexByte(rest, '\n')+1:], tag) {
			return nil
		}
	}
}

// digest gives each untagged response of what was swallowed to each, as command does.
func (c *client) digest(each func(response) error) error {
	replay := &client{in: bufio.NewReaderSize(bytes.NewReader(c.whole), 64<<10), tag: c.tag}
	return replay.finish(each)
}

// next reads a response with its literals.
func (c *client) next() (response, error) {
	r := response{line: c.line[:0]}
	for {
		start := len(r.line)
		for {
			piece, err := c.in.ReadSlice('\n')
			r.line = append(r.line, piece...)
			if err == nil {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				return r, err
			}
		}
		r.line = bytes.TrimRight(r.line, "\r\n")
		c.line = r.line
		size, ok := literalSize(r.line[start:])
		if !ok {
			return r, nil
		}
		if size > maxLiteral {
			return r, fmt.Errorf("a literal of %d octets", size)
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(c.in, literal); err != nil {
			return r, err
		}
		r.literals = append(r.literals, literal)
	}
}

// literalSize is the size of the literal that a line ends with.
func literalSize(line []byte) (int64, bool) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0, false
	}
	size, err := strconv.ParseInt(string(line[bytes.LastIndexByte(line, '{')+1:len(line)-1]), 10, 64)
	return size, err == nil
}

// send begins APPEND of a message; the server's answer is not waited for.
func (c *client) send(mailbox string, mail []byte) error {
	sync := "+"
	if !c.plus {
		sync = ""
	}
	if err := c.begin(fmt.Sprintf("APPEND %s {%d%s}", mailbox, len(mail), sync)); err != nil {
		return err
	}
	if !c.plus {
		if r, err := c.next(); err != nil || !bytes.HasPrefix(r.line, []byte("+")) {
			return fmt.Errorf("%w: APPEND was answered by %q, %w", errStop, r.line, err)
		}
	}
	_, _ = c.out.Write(mail) // Flush tells
	_, _ = c.out.WriteString("\r\n")
	if err := c.out.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errStop, err)
	}
	return nil
}

// append appends a message.
func (c *client) append(mailbox string, mail []byte) error {
	if err := c.send(mailbox, mail); err != nil {
		return err
	}
	return c.finish(func(response) error { return nil })
}

// renew makes mailbox anew, empty.
func (c *client) renew(mailbox string) error {
	if err := c.ok("DELETE " + mailbox); errors.Is(err, errStop) {
		return err // else it was not there
	}
	return c.ok("CREATE " + mailbox)
}

// number is the number behind a word in a line; -1 if there is none.
func number(line []byte, word string) int {
	_, rest, found := bytes.Cut(line, []byte(word))
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(string(rest[:end]))
	if !found || err != nil {
		return -1
	}
	return n
}

// told is the number in an untagged response such as "* 5 EXISTS"; -1 if it is another.
func told(line []byte, what string) int {
	rest, untagged := bytes.CutPrefix(line, []byte("* "))
	n, rest, spaced := bytes.Cut(rest, []byte(" "))
	if !untagged || !spaced || len(rest) < len(what) || !bytes.EqualFold(rest[:len(what)], []byte(what)) ||
		len(rest) > len(what) && rest[len(what)] != ' ' || len(n) == 0 {
		return -1
	}
	return number(n, "")
}

// status is what STATUS says of a mailbox: the number of messages.
func (c *client) status(mailbox string) (messages int, err error) {
	messages = -1
	err = c.command("STATUS "+mailbox+" (MESSAGES)", func(r response) error {
		if n := number(r.line, "(MESSAGES "); n >= 0 {
			messages = n
		}
		return nil
	})
	return messages, err
}
