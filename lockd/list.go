package lockd

import (
	"iter"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/table"
)

// LockInfo is what a listing shows of one lock or request. Of another host's only what the state has is known: Ino, Host,
// Mode, Wanted, Token and Place.
type LockInfo struct {
	Ino       uint64
	Host      string
	Here      bool       // of this host
	Mode      queue.Mode // granted, or None
	Wanted    queue.Mode // waited for, or None
	Convert   bool       // what waits is a conversion
	Flags     queue.Flags
	PID       uint32 // the thread that asked
	Tgid      uint32 // its process; 0: gone
	UID       uint32
	Comm      string
	Since     time.Time // of the grant, or of the request while nothing is granted
	Token     uint64
	Place     int           // among those that wait for this resource here, from 1; 0: does not wait
	TTL       time.Duration // left of the time to live; 0: unlimited
	BlockedBy []Party       // of what waits
	Listener  Listener      // of a lock of this host
}

// Locks returns the locks of a resource: of this host, those held before those that wait in their order, then what other
// hosts have and want. It looks at processes, some 20 µs each.
func (h *Host) Locks(ino uint64) []LockInfo {
	h.lockNow()
	var infos []LockInfo
	base := h.timeBase()
	for t := range h.table.Locks(ino) {
		infos = append(infos, h.lockInfo(t, base))
	}
	h.unlock()
	h.lookUp(infos)
	return append(infos, h.others(h.View().HostLocks(ino))...)
}

// AllLocks returns all locks, those of this host first, by resource as they are first used. The list is made at the first
// step, processes are looked up on the way.
func (h *Host) AllLocks() iter.Seq[LockInfo] {
	return func(yield func(LockInfo) bool) {
		h.lockNow()
		var infos []LockInfo
		base := h.timeBase()
		for t := range h.table.All() {
			infos = append(infos, h.lockInfo(t, base))
		}
		h.unlock()
		const step = 64
		for i := 0; i < len(infos); i += step {
			part := infos[i:min(i+step, len(infos))]
			h.lookUp(part)
			for _, info := range part {
				if !yield(info) {
					return
				}
			}
		}
		for _, info := range h.others(h.View().AllHostLocks()) {
			if !yield(info) {
				return
			}
		}
	}
}

// Info returns what a listing shows of one lock; ok is false if it is neither held nor waiting.
func (h *Host) Info(l *Lock) (info LockInfo, ok bool) {
	h.lockNow()
	if !l.t.Held() && l.wait == nil {
		h.unlock()
		return LockInfo{}, false
	}
	infos := []LockInfo{h.lockInfo(&l.t, h.timeBase())}
	h.unlock()
	h.lookUp(infos)
	return infos[0], true
}

// Cmdline returns the command line of the process that has a lock of this host, empty if it is gone. It parks: the
// kernel reads it out of the process's memory, which may be mapped from a file that this daemon serves.
func (h *Host) Cmdline(c *Call, info *LockInfo) string {
	if !info.Here || info.PID == 0 {
		return ""
	}
	c.park()
	pid := info.Tgid
	if pid == 0 {
		pid = info.PID
	}
	return h.cfg.Processes.Cmdline(pid)
}

// Blocks reports whether somebody waits because of a lock, here or on another host.
func (h *Host) Blocks(l *Lock) bool {
	h.lockNow()
	defer h.unlock()
	return h.table.Blocks(&l.t) != queue.None
}

// timeBase returns what to add to a time of CLOCK_BOOTTIME to make it one of day.
func (h *Host) timeBase() time.Time { return h.wall().Add(-time.Duration(h.cfg.Now())) }

// lockInfo describes a lock of this host. Called with the mutex held.
func (h *Host) lockInfo(t *table.Lock, base time.Time) LockInfo {
	l := t.User.(*Lock)
	info := LockInfo{
		Listener: l.Listener, Tgid: l.tgid, Ino: t.Ino, Host: h.cfg.Name, Here: true, Mode: t.Mode, Wanted: t.Wanted, Convert: t.Converts(), Flags: t.Flags,
		PID: t.PID, UID: t.UID, Since: base.Add(time.Duration(t.Since)), Token: t.Token,
	}
	if t := l.ttl(); t != nil {
		info.TTL = max(t.end.Sub(h.wall()), 1)
	}
	if !t.Waits() {
		return info
	}
	info.Place = 1
	for b := range h.table.Blockers(t) {
		switch {
		case b.Lock != nil:
			if b.Waiting {
				info.Place++
			}
			info.BlockedBy = append(info.BlockedBy, Party{Host: h.cfg.Name, PID: b.Lock.PID})
		case b.Host:
			info.BlockedBy = append(info.BlockedBy, h.hostsInTheWay(b.Ino, t.Wanted)...)
		}
		if len(info.BlockedBy) >= maxBlockedBy {
			break
		}
	}
	return info
}

// maxBlockedBy bounds what one listing entry names.
const maxBlockedBy = 64

// hostsInTheWay names the other hosts that hold a resource in a mode that is in the way.
func (h *Host) hostsInTheWay(ino uint64, wanted queue.Mode) (hosts []Party) {
	v := h.View()
	for x := range v.HostLocks(ino) {
		if x.Session != h.lease.session && x.Mode != queue.None && !queue.Compatible(x.Mode, wanted) {
			s, _ := v.Session(x.Session)
			hosts = append(hosts, Party{Host: s.Host})
		}
	}
	return hosts
}

// lookUp fills in what the processes tell. No mutex is held.
func (h *Host) lookUp(infos []LockInfo) {
	seen := make(map[uint32]process.Info)
	look := func(pid uint32) process.Info {
		p, ok := seen[pid]
		if !ok && pid != 0 {
			p, _ = h.cfg.Processes.Look(pid)
			seen[pid] = p
		}
		return p
	}
	for i := range infos {
		info := &infos[i]
		p := look(info.PID)
		if p.Tgid == 0 {
			p = look(info.Tgid) // the thread has ended
		}
		info.Tgid, info.Comm = p.Tgid, p.Comm
		for j := range info.BlockedBy {
			info.BlockedBy[j].Comm = look(info.BlockedBy[j].PID).Comm
		}
	}
}

// others lists what other hosts have and want.
func (h *Host) others(locks iter.Seq[state.HostLock]) (infos []LockInfo) {
	v, own := h.View(), h.Session()
	for x := range locks {
		if x.Session == own {
			continue
		}
		s, _ := v.Session(x.Session)
		info := LockInfo{Ino: x.Ino, Host: s.Host, Mode: x.Mode, Wanted: x.Wanted, Convert: x.Convert, Place: x.Place}
		if x.Mode != queue.None {
			info.Token = x.Token(v.TokenBase())
		}
		infos = append(infos, info)
	}
	return infos
}
