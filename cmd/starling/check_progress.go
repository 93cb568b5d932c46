package main

import (
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// checkSteps is how many steps of the bar an account is.
const checkSteps = 1000

// checkProgress shows how far a check is, by a bar on a terminal.
type checkProgress struct {
	out io.Writer
	bar *mpb.Bar // nil: none
	all *mpb.Progress

	mu      sync.Mutex
	account string
	before  int64 // accounts that are done
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor
}

func newCheckProgress(out io.Writer, accounts int, quiet bool) *checkProgress {
	p := &checkProgress{out: out}
	if quiet || !isTerminal(out) {
		return p
	}
	p.all = mpb.New(mpb.WithOutput(out))
	p.bar = p.all.AddBar(int64(accounts)*checkSteps,
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return p.name() }), decor.Name(" ")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)),
	)
	return p
}

// lines is where to write lines, so that they stand above the bar.
func (p *checkProgress) lines() io.Writer {
	if p.all != nil {
		return p.all
	}
	return p.out
}

func (p *checkProgress) name() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.account
}

// begin says which account is next.
func (p *checkProgress) begin(account string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.account = account
}

// part says how much of the account is done, 0 to 1. The bar ends with the last account,
// not before.
func (p *checkProgress) part(part float64) {
	if p.bar == nil {
		return
	}
	p.mu.Lock()
	at := p.before*checkSteps + min(checkSteps-1, int64(part*checkSteps))
	p.mu.Unlock() // the bar asks for the name while it is set
	p.bar.SetCurrent(at)
}

// done says that the account is.
func (p *checkProgress) done() {
	p.mu.Lock()
	p.before++
	p.mu.Unlock()
	p.part(0)
}

// finish ends the bar.
func (p *checkProgress) finish(whole bool) {
	if p.bar == nil {
		return
	}
	if whole {
		p.bar.SetTotal(-1, true)
	} else {
		p.bar.Abort(false)
	}
	p.all.Wait()
}
