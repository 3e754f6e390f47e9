package state

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// report parses the words of a line of a script that tells of a lock or a wait.
func (r *script) report(verb string, args []string, opt map[string]string) *statepb.Report {
	number := func(s string) uint64 {
		n, _ := strconv.ParseUint(s, 10, 64)
		return n
	}
	key := &statepb.ReportKey{Ino: r.ino(args[0]), Id: number(args[1])}
	if verb == "gone" {
		return &statepb.Report{Gone: []*statepb.ReportKey{key}}
	}
	mode, ok := queue.ParseMode(args[2])
	if !ok {
		r.t.Fatalf("%v: no mode", args)
	}
	pid := uint32(number(opt["pid"]))
	p := &statepb.Reported{
		Ino: key.Ino, Id: key.Id, Mode: uint32(mode), Kind: uint32(ReportHeld), Pid: pid, Tgid: pid, Uid: 7, Comm: []byte("cmd"),
		Since: r.time * 1e9,
	}
	for _, w := range []string{"nodlckwt", "nodlckblk"} {
		if _, is := opt[w]; is {
			f, _ := queue.ParseFlag(w)
			p.Flags |= uint32(f)
		}
	}
	if verb == "held" {
		return &statepb.Report{Set: []*statepb.Reported{p}}
	}
	p.Kind, p.At = uint32(ReportWait), key.Ino
	if at := opt["at"]; at != "" {
		p.At = r.ino(at)
	}
	if _, is := opt["convert"]; is {
		p.Kind, p.First = uint32(ReportConversion), true
	}
	if id := opt["range"]; id != "" {
		p.Kind, p.Range = uint32(ReportRange), number(id)
	}
	if _, is := opt["first"]; is {
		p.First = true
	}
	p.Rank = int64(key.Id)
	if rank := opt["rank"]; rank != "" {
		p.Rank = int64(number(rank))
	}
	if holds := opt["holds"]; holds != "" {
		for _, h := range strings.Split(holds, ",") {
			path, id, _ := strings.Cut(h, ":")
			p.Holds = append(p.Holds, &statepb.ReportKey{Ino: r.ino(path), Id: number(id)})
		}
	}
	return &statepb.Report{Set: []*statepb.Reported{p}}
}

// showReports shows what hosts told, and what came of it.
func (r *script) showReports(out *strings.Builder, what string) {
	v := r.s.View()
	key := func(k ReportKey) string { return fmt.Sprintf("%s %d/%d", r.name(v, k.Ino), k.Session, k.ID) }
	link := func(by By, k ReportKey, pid uint32) string {
		switch by {
		case ByLock:
			return "lock " + key(k)
		case ByWait:
			return "behind " + key(k)
		}
		return fmt.Sprintf("range of %d/%d", k.Session, pid)
	}
	switch what {
	case "reports":
		for x := range v.AllReports() {
			fmt.Fprintf(out, "%s %v pid=%d", key(x.ReportKey), x.Mode, x.Tgid)
			if x.Waits() {
				fmt.Fprintf(out, " waits at=%s rank=%d born=%d", r.name(v, x.At), x.Rank, x.Born)
			}
			out.WriteByte('\n')
		}
	case "suspicions":
		for i, x := range v.Suspicions() {
			fmt.Fprintf(out, "%d: round %d\n", i, x.Round)
			for _, l := range x.Links {
				fmt.Fprintf(out, "  %s: %s\n", key(l.Wait), link(l.By, l.Key, l.PID))
			}
			for _, a := range x.Answers {
				fmt.Fprintf(out, "  session %d: stuck=%v wrong=%v\n", a.Session, a.Stuck, a.Wrong)
			}
		}
	case "deadlocks":
		for _, c := range v.Cycles() {
			fmt.Fprintf(out, "index %d:\n", c.Index)
			for _, p := range c.Parties {
				fmt.Fprintf(out, "  %s pid %d wants %v of %s: %s of %s pid %d\n", p.Host, p.Wait.Tgid, p.Wait.Mode, key(p.Wait.ReportKey),
					link(p.By, p.Key.ReportKey, p.Key.Tgid), p.ByHost, p.Key.Tgid)
			}
		}
	}
}
