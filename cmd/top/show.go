package top

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// reading is a round that was read, or why it could not be.
type reading struct {
	round
	err error
}

// show shows rounds on a terminal until the user has enough of them.
func (w *watch) show(t *terminal) error {
	s := &screen{selection: w.selection}
	first, err := w.read()
	if err != nil {
		return err
	}
	s.last = first
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGWINCH, unix.SIGCONT)
	defer signal.Stop(signals)
	if err := t.enter(); err != nil {
		return err
	}
	defer t.leave()
	keys := make(chan key)
	go t.keys(keys)
	readings := make(chan reading, 1)
	next := time.NewTimer(pause(first.took))
	defer next.Stop()
	for {
		width, height := t.size()
		if err := t.draw(s.lines(width, height, time.Now())); err != nil {
			return err
		}
		select {
		case k, more := <-keys:
			if k == keySuspend {
				if err := t.suspend(signals); err != nil {
					return err
				}
				continue
			}
			if !more || s.press(k, height) {
				return nil
			}
		case sig := <-signals:
			if sig != unix.SIGWINCH && sig != unix.SIGCONT {
				return nil
			}
		case <-next.C: // one at a time, so that keys work however long it takes
			go func() {
				r, err := w.read()
				readings <- reading{r, err}
			}()
		case r := <-readings:
			if r.err != nil {
				return r.err
			}
			s.last = r.round
			next.Reset(pause(r.took))
		}
	}
}

// suspend stops this process and what is in its job, as Ctrl-Z does, with the terminal as it was, and takes it again when they go on.
func (t *terminal) suspend(signals <-chan os.Signal) error {
	t.leave()
	if err := unix.Kill(0, unix.SIGTSTP); err != nil {
		return err
	}
	orphaned := time.After(time.Second) // by its shell: then nothing stops it, and it goes on
	for {
		select {
		case sig := <-signals:
			if sig != unix.SIGCONT {
				continue
			}
		case <-orphaned:
		}
		return t.enter()
	}
}
