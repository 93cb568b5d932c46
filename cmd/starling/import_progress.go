package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// importLines is after how many messages a line is written where there is no bar.
const importLines = 1000

// importProgress shows how far an import is: by a bar on a terminal, else by lines.
type importProgress struct {
	out io.Writer
	bar *mpb.Bar
	all *mpb.Progress

	mu                    sync.Mutex
	done, repeated, wrong int
}

func newImportProgress(out io.Writer, size int64) *importProgress {
	p := &importProgress{out: out}
	if f, ok := out.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) { //nolint:gosec // a descriptor
		return p
	}
	p.all = mpb.New(mpb.WithOutput(out))
	p.bar = p.all.AddBar(size,
		mpb.PrependDecorators(
			decor.Any(func(decor.Statistics) string { return p.counts() }),
			decor.CountersKibiByte("  % .1f of % .1f "),
		),
		mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)),
	)
	return p
}

func (p *importProgress) counts() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text()
}

// text is what was done so far; mu is held.
func (p *importProgress) text() string {
	text := fmt.Sprintf("imported: %d", p.done)
	if p.repeated > 0 {
		text += fmt.Sprintf(", there already: %d", p.repeated)
	}
	if p.wrong > 0 {
		text += fmt.Sprintf(", failed: %d", p.wrong)
	}
	return text
}

func (p *importProgress) imported(size int64) { p.count(&p.done, size) }
func (p *importProgress) again(size int64)    { p.count(&p.repeated, size) }

func (p *importProgress) count(counter *int, size int64) {
	p.mu.Lock()
	*counter++
	if p.bar == nil && (p.done+p.repeated)%importLines == 0 {
		fmt.Fprintln(p.out, p.text())
	}
	p.mu.Unlock()
	if p.bar != nil {
		p.bar.IncrInt64(size)
	}
}

// failed tells of a message that is left out.
func (p *importProgress) failed(name string, err error) {
	p.mu.Lock()
	p.wrong++
	p.mu.Unlock()
	out := p.out
	if p.all != nil {
		out = p.all // above the bar
	}
	fmt.Fprintf(out, "%s: %v\n", name, err)
}

// finish ends the bar, says what came of it, and returns how many messages failed.
func (p *importProgress) finish(whole bool) int {
	if p.bar != nil {
		if whole {
			p.bar.SetTotal(-1, true)
		} else {
			p.bar.Abort(false)
		}
		p.all.Wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, p.text())
	return p.wrong
}
