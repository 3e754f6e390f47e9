package client

import (
	"os"
	"strings"

	"github.com/lockfs/lockfs/cmd/exit"
)

// Deadlock is one entry of .lockfs/deadlocks.
type Deadlock struct {
	Fields Fields   `json:"deadlock"`
	Waits  []Fields `json:"waits"` // the victim's first; each is held up by what the next one's process has, the last by the first's
}

// Deadlocks reads .lockfs/deadlocks, the newest last.
func (m Mount) Deadlocks(op string) ([]Deadlock, error) {
	text, err := os.ReadFile(m.Control("deadlocks"))
	if err != nil {
		return nil, exit.Of(op, m.Point, err)
	}
	list := []Deadlock{} // not nil: JSON shows it
	for line := range strings.Lines(string(text)) {
		switch kind, fields := ParseWords(line); {
		case kind == "deadlock":
			list = append(list, Deadlock{Fields: fields})
		case kind == "wait" && len(list) > 0:
			d := &list[len(list)-1]
			d.Waits = append(d.Waits, fields)
		}
	}
	return list, nil
}
