package chaos

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"
)

// mta delivers mail to INBOX by LMTP, as a mail transfer agent does: each until it is taken, now by this node, now by that.
type mta struct {
	no      int
	user    string
	nodes   []string
	random  *rand.Rand
	begin   time.Time
	next    int
	pending *Op // that is not taken yet
	ops     []Op
	refused int

	conn net.Conn
	in   *bufio.Reader
	node int
}

func (m *mta) now() time.Duration { return time.Since(m.begin) }

func (m *mta) run(ctx context.Context) {
	defer m.drop()
	for ctx.Err() == nil {
		if m.pending == nil {
			m.next++
			m.pending = &Op{Client: m.no, Name: "LMTP", To: boxes()[0], ID: fmt.Sprintf("%s%d-%d.", deliveredMail, m.no, m.next), Start: m.now()}
		}
		if !m.try() {
			m.refused++
			pause(ctx, 100*time.Millisecond)
			continue
		}
		pause(ctx, time.Duration(m.random.IntN(300))*time.Millisecond)
	}
}

// last delivers what it still has, after all is mended.
func (m *mta) last() error {
	const tries = 20
	for range tries {
		if m.pending == nil || m.try() {
			m.drop()
			return nil
		}
		pause(context.Background(), 100*time.Millisecond)
	}
	return fmt.Errorf("mail transfer agent %d, after all is mended: %s", m.no, m.pending.Answer)
}

func (m *mta) drop() {
	if m.conn != nil {
		_ = m.conn.Close() // it is given up
		m.conn = nil
	}
}

// try offers the pending mail once. It is done with when it is taken or refused for good; else it may be there or not.
func (m *mta) try() bool {
	m.pending.Node = m.node + 1
	answer, err := m.deliver()
	if err != nil {
		m.pending.Answer = err.Error()
		m.drop()
		return false
	}
	m.pending.Answer = answer
	switch answer[0] {
	case '2':
		m.pending.Result = OK
	case '5':
		m.pending.Result = NO
	default:
		if m.random.IntN(2) == 0 {
			m.drop()
		}
		return false
	}
	m.pending.Conn = -m.no // it has no view of a mailbox
	m.pending.End = m.now()
	m.ops, m.pending = append(m.ops, *m.pending), nil
	if m.random.IntN(4) == 0 {
		m.drop()
	}
	return true
}

// deliver is one attempt: the answer that says what became of it, or an error if none came.
func (m *mta) deliver() (string, error) {
	if m.conn == nil {
		m.node = m.random.IntN(len(m.nodes))
		conn, err := (&net.Dialer{Timeout: commandTime}).DialContext(context.Background(), "tcp", m.nodes[m.node])
		if err != nil {
			return "", err
		}
		m.conn, m.in = conn, bufio.NewReader(conn)
		if answer, err := m.ask(""); err != nil || answer[0] != '2' {
			return answer, err
		}
		if answer, err := m.ask("LHLO mta.example.org"); err != nil || answer[0] != '2' {
			return answer, err
		}
	}
	for _, command := range []string{"MAIL FROM:<client@example.org>", "RCPT TO:<" + m.user + ">", "DATA"} {
		answer, err := m.ask(command)
		if err != nil || answer[0] != '2' && answer[0] != '3' {
			if err == nil {
				_, err = m.ask("RSET")
			}
			return answer, err
		}
	}
	return m.ask(strings.ReplaceAll(mail(m.pending.ID), "\r\n.", "\r\n..") + ".")
}

// ask sends a line, unless it is empty, and reads the answer to it.
func (m *mta) ask(line string) (string, error) {
	_ = m.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
	if line != "" {
		if _, err := m.conn.Write([]byte(line + "\r\n")); err != nil {
			return "", err
		}
	}
	for {
		answer, err := m.in.ReadString('\n')
		if err != nil {
			return "", err
		}
		answer = strings.TrimRight(answer, "\r\n")
		if len(answer) < 3 {
			return "", fmt.Errorf("the answer is %q", answer)
		}
		if _, err := strconv.Atoi(answer[:3]); err != nil {
			return "", fmt.Errorf("the answer is %q", answer)
		}
		if len(answer) == 3 || answer[3] != '-' {
			return answer, nil
		}
	}
}
