package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ownNames is how the names of mailboxes begin that only one client makes, renames and deletes.
const ownNames = "names"

// mostDoubt is how many commands in doubt a client of names bears before it goes on with other names: any of them may still
// be carried out, in any order.
const mostDoubt = 2

// namer makes, renames and deletes mailboxes of its own, looks at them from all nodes, and puts mail into them.
type namer struct {
	client

	space string // how its names begin now
	count int    // of such spaces
	doubt int    // commands in doubt in this space
}

// names are those that it uses: some flat, and some that go with another.
func (n *namer) name() string {
	return n.space + [...]string{"a", "b", "c", "a/x", "b/x", "c/x"}[n.random.IntN(6)]
}

// parent is one of those that others go with.
func (n *namer) parent() string { return n.space + string("abc"[n.random.IntN(3)]) }

func (n *namer) run(ctx context.Context) {
	for ctx.Err() == nil {
		if n.wire == nil {
			if err := n.connect(n.random.IntN(len(n.nodes)), ""); err != nil {
				n.refused++
				pause(ctx, 50*time.Millisecond)
			}
			continue
		}
		n.step()
		pause(ctx, time.Duration(n.random.IntN(60))*time.Millisecond)
	}
}

func (n *namer) step() {
	if n.space == "" || n.doubt > mostDoubt {
		n.count, n.doubt = n.count+1, 0
		n.space = fmt.Sprintf("%s%dg%d.", ownNames, n.no, n.count)
	}
	name := n.name()
	o := Op{To: name, Space: n.space}
	var text string
	switch what := n.random.IntN(100); {
	case what < 30:
		o.Name, text = "CREATE", "CREATE "+name
	case what < 42:
		o.Name, text = "DELETE", "DELETE "+name
	case what < 55:
		o.Name, o.Renamed = "RENAME", n.name()
		if n.random.IntN(4) > 0 {
			name, o.Renamed = n.parent(), n.parent()
			o.To = name
		}
		if strings.HasPrefix(o.Renamed, name) || strings.HasPrefix(name, o.Renamed) {
			return
		}
		text = "RENAME " + name + " " + o.Renamed
	case what < 75:
		n.next++
		o.Name, o.ID = "PUT", fmt.Sprintf("%d-%d.", n.no, n.next)
		text = fmt.Sprintf("APPEND %s () %s", name, literal(mail(o.ID)))
	default:
		n.look()
		return
	}
	n.do(o, text)
	if last := &n.ops[len(n.ops)-1]; last.Result == InDoubt && last.Name != "PUT" {
		n.doubt++
	}
	if n.wire != nil && n.random.IntN(4) == 0 {
		n.drop() // on to another node
	}
}

// look lists what it has.
func (n *namer) look() {
	n.do(Op{Name: "LIST", Space: n.space}, fmt.Sprintf(`LIST "" "%s*" RETURN (STATUS %s)`, n.space, countItems))
}

// last looks at them once more, after all is mended.
func (n *namer) last() error {
	if n.space == "" {
		return nil
	}
	const tries = 3 // the connection may have been broken before all was mended
	var err error
	for range tries {
		if n.wire == nil {
			if err = n.connect(n.random.IntN(len(n.nodes)), ""); err != nil {
				continue
			}
		}
		n.look()
		o := &n.ops[len(n.ops)-1]
		if o.Result == OK {
			return nil
		}
		err = errors.New(o.Answer)
	}
	return fmt.Errorf("client %d, after all is mended: %w", n.no, err)
}
