// Package ui draws what users see while they wait.
package ui

import (
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// State is how far something is. What costs nothing spends "", and what has no known end has a Total of 0.
type State struct {
	Received, Total uint64
	Spent           string
	Status          string
}

// Progress shows states: as a bar on a terminal, else as a line now and then, or not at all.
type Progress struct {
	w      io.Writer
	bars   *mpb.Progress
	bar    *mpb.Bar
	status string
	spent  string
	silent bool
	last   time.Time
	line   string
}

// NewProgress draws on w.
func NewProgress(w io.Writer, terminal, silent bool) *Progress {
	p := &Progress{w: w, silent: silent}
	if terminal && !silent {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(0,
			mpb.PrependDecorators(decor.CountersKibiByte("% .1f / % .1f")),
			mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), " % .1f"), decor.Any(func(decor.Statistics) string {
				if p.spent == "" {
					return "  " + p.status
				}
				return fmt.Sprintf("  paid %s  %s", p.spent, p.status)
			})),
			mpb.BarRemoveOnComplete())
	}
	return p
}

// Update shows a state.
func (p *Progress) Update(s State) {
	p.status, p.spent = Text(s.Status), Text(s.Spent)
	switch {
	case p.silent:
	case p.bar != nil:
		p.bar.SetTotal(int64(max(s.Total, s.Received)), false)
		p.bar.SetCurrent(int64(s.Received))
	default:
		line := fmt.Sprintf("%s: %d bytes", s.Status, s.Received)
		switch {
		case s.Spent != "" && s.Total == 0: // a deal that goes on without a new offer
			line = fmt.Sprintf("%s: received %d bytes, paid %s", s.Status, s.Received, s.Spent)
		case s.Spent != "":
			line = fmt.Sprintf("%s: received %d of at most %d bytes, paid %s", s.Status, s.Received, s.Total, s.Spent)
		}
		if line != p.line && time.Since(p.last) >= time.Second {
			p.line, p.last = line, time.Now()
			Printf(p.w, "%s\n", line)
		}
	}
}

// Close ends the drawing.
func (p *Progress) Close() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bars.Wait()
	}
}
