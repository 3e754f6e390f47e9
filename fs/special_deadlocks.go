package fs

import (
	"strconv"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// byWords say what holds a wait of a cycle up.
var byWords = map[state.By]string{state.ByLock: "lock", state.ByWait: "request", state.ByRange: "range"}

// deadlocksText is .lockfs/deadlocks: the last ones that were found, the newest last. Each is a line that begins with
// `deadlock` and names the victim, and one for each wait of the cycle, the victim's first, each with what holds it up and
// whose that is, which is the next line's process. One is shown if the reader could stat all that is in it.
func (f *FS) deadlocksText(c *lockd.Call) (text []byte) {
	v := f.host.View()
	who := f.searcher(c)
	for _, x := range v.Cycles() {
		if !who.reachesAll(x) {
			continue
		}
		victim := x.Parties[0]
		w := words("deadlock")
		w.put("time", when(time.Unix(0, x.Time)))
		w.put("victim", lockd.Party{Host: victim.Host, PID: victim.Wait.Tgid}.String())
		w.put("comm", victim.Wait.Comm)
		w.put("path", v.Path(victim.Wait.Ino))
		w.put("waits", strconv.Itoa(len(x.Parties)+x.LeftOut))
		text = append(append(text, w...), '\n')
		for _, p := range x.Parties {
			text = append(append(text, partyWords(v, p)...), '\n')
		}
	}
	return text
}

// reachesAll reports whether all resources of a cycle could be seen by stat.
func (s searcher) reachesAll(x *state.Cycle) bool {
	for _, p := range x.Parties {
		if !s.reaches(p.Wait.Ino) || !s.reaches(p.Key.Ino) {
			return false
		}
	}
	return true
}

// PublicCycle reports whether everybody could stat all resources of a cycle: see Public.
func (f *FS) PublicCycle(x *state.Cycle) bool { return f.stranger().reachesAll(x) }

func partyWords(v *state.View, p state.Party) wordLine {
	w := words("wait")
	w.put("by", lockd.Party{Host: p.Host, PID: p.Wait.Tgid}.String())
	w.put("comm", p.Wait.Comm)
	w.put("uid", strconv.FormatUint(uint64(p.Wait.UID), 10))
	w.put("wanted", p.Wait.Mode.String())
	w.put("path", v.Path(p.Wait.Ino))
	w.put("since", when(time.Unix(0, p.Wait.Since)))
	w.put("held-up-by", byWords[p.By])
	w.put("of", lockd.Party{Host: p.ByHost, PID: p.Key.Tgid}.String())
	w.put("of-comm", p.Key.Comm)
	w.put("of-mode", modeName(p.Key.Mode))
	w.put("of-path", v.Path(p.Key.Ino))
	return w
}

// wordLine is a line of `key=value` words, as a notice is.
type wordLine []byte

func words(kind string) wordLine { return wordLine(kind) }

// put appends a word; an empty value is left out.
func (w *wordLine) put(key, value string) {
	if value != "" {
		*w = lockd.AppendEscaped(append(append(append(*w, ' '), key...), '='), value)
	}
}
