package fs

import "github.com/lockfs/lockfs/lockd/queue"

// rights are what an opener may do with a file: DESIGN 1.2.
type rights uint8

const (
	mayRead  rights = 1 << iota // take NL, CR, PR; read the value
	mayWrite                    // take CW, PW, EX; write the value

	mayAll = mayRead | mayWrite
)

// modeNeeds is the one permission that each mode needs.
var modeNeeds = [...]rights{queue.NL: mayRead, queue.CR: mayRead, queue.PR: mayRead, queue.CW: mayWrite, queue.PW: mayWrite, queue.EX: mayWrite}

func (r rights) allow(m queue.Mode) bool { return r&modeNeeds[m] == modeNeeds[m] }

// owned is what the permission check of a file looks at.
type owned struct {
	perm     uint32
	uid, gid uint32
}

// class returns the rights of one class of users: shift 6 the owner's, 3 the group's, 0 everybody else's.
func (o owned) class(shift uint) (r rights) {
	if o.perm>>shift&4 != 0 {
		r |= mayRead
	}
	if o.perm>>shift&2 != 0 {
		r |= mayWrite
	}
	return r
}

// opener is who opens. groups looks up the supplementary groups, which costs 13 µs; it is asked only if the rest does
// not decide.
type opener struct {
	uid, gid uint32
	groups   func() []uint32
}

// rightsOf returns what the opener may do with a file, of which the kernel has checked proven already (capabilities
// can prove more than the bits say).
func rightsOf(o owned, who opener, proven rights) rights {
	switch {
	case who.uid == 0 || proven == mayAll:
		return mayAll
	case who.uid == o.uid:
		return proven | o.class(6)
	case who.gid == o.gid:
		return proven | o.class(3)
	}
	group, other := proven|o.class(3), proven|o.class(0)
	if group == other {
		return other
	}
	for _, g := range who.groups() {
		if g == o.gid {
			return group
		}
	}
	return other
}

// aliasPerm returns the permission bits of an alias that needs one right: a class that has it in the file may open the
// alias with any access mode, a class that lacks it may not open it at all.
func aliasPerm(perm uint32, need rights) (bits uint32) {
	o := owned{perm: perm}
	for _, shift := range []uint{0, 3, 6} {
		if o.class(shift)&need == need {
			bits |= 6 << shift
		}
	}
	return bits
}
