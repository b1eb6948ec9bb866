package main

import (
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/abdul-abdi/lumina/builder"
)

// progress draws the steps of a build as bars, on a terminal only.
type progress struct {
	mu   sync.Mutex
	bars *mpb.Progress // nil: nothing is drawn
	step map[string]*mpb.Bar
	tell func(builder.Progress) // called instead of drawing bars; may be nil
}

func newProgress(env *environment) *progress {
	p := &progress{step: map[string]*mpb.Bar{}, tell: env.progress}
	if p.tell == nil && term.IsTerminal(int(env.stderr.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(env.stderr), mpb.WithWidth(40))
	}
	return p
}

func (p *progress) update(u builder.Progress) {
	if p.tell != nil {
		p.tell(u)
	}
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := u.Step + " " + u.Item
	bar := p.step[key]
	if bar == nil {
		name := u.Step
		if len(u.Item) > 19 {
			name += " " + u.Item[7:19]
		}
		label := mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR))
		switch {
		case u.Total > 0:
			bar = p.bars.AddBar(u.Total, label, mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
		case u.Done > 0:
			bar = p.bars.AddSpinner(0, label, mpb.AppendDecorators(decor.CurrentKibiByte("% .1f")))
		default:
			bar = p.bars.AddSpinner(0, label)
		}
		p.step[key] = bar
	}
	if u.Total > 0 {
		bar.SetCurrent(min(u.Done, u.Total))
	} else {
		bar.SetCurrent(u.Done)
	}
}

// percent draws a step that is counted in hundredths.
func (p *progress) percent(step string, done int64) {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.step[step] == nil {
		p.step[step] = p.bars.AddBar(100, mpb.PrependDecorators(decor.Name(step, decor.WCSyncSpaceR)), mpb.AppendDecorators(decor.Percentage()))
	}
	p.step[step].SetCurrent(done)
}

// close ends the drawing; what is not complete is so for a reason.
func (p *progress) close(done bool) {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, b := range p.step {
		if done {
			b.SetTotal(-1, true)
		} else {
			b.Abort(false)
		}
	}
	p.mu.Unlock()
	p.bars.Wait()
}
