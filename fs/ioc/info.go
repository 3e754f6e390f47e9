package ioc

// View is the kind of mount point that a descriptor was opened through.
type View uint32

const (
	_ View = iota
	ViewLock
	ViewPosix
	ViewDlmfs
)

var viewNames = [...]string{"", "lock", "posix", "dlmfs"}

// String returns the view's name, "" for an unknown one.
func (v View) String() string {
	if int(v) < len(viewNames) {
		return viewNames[v]
	}
	return ""
}

// State is where a descriptor's lock stands.
type State uint32

const (
	Unlocked   State = iota // the descriptor has no lock and asks for none
	Waiting                 // asked for, nothing granted yet
	Held                    // granted
	Converting              // granted in Mode, asked for in Wanted
	LostLock                // taken away
)

var stateNames = [...]string{"unlocked", "waiting", "held", "converting", "lost"}

// String returns the state's word, "" for an unknown one.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return ""
}

// Info is the struct of CmdInfo: what a descriptor is. Any descriptor below a mount point answers.
type Info struct {
	Ino        uint64 // of the resource in the tree
	Generation uint64
	Token      uint64
	Since      int64 // ns since 1970 of the grant, or of the request while it waits
	Mode       uint32
	Wanted     uint32
	View       View
	State      State
	Flags      Flags
	Valid      bool
	Notices    uint32 // queued
	Path       string // in the tree, from its root, beginning with "/"; ENAMETOOLONG over MaxPath
}

// DecodeInfo reads a payload.
func DecodeInfo(b []byte) (Info, error) {
	if err := expect(b, TextSize, "info"); err != nil {
		return Info{}, err
	}
	valid := order.Uint32(b[52:])
	i := Info{
		Ino: order.Uint64(b), Generation: order.Uint64(b[8:]), Token: order.Uint64(b[16:]), Since: int64(order.Uint64(b[24:])),
		Mode: uint32(b[32]), Wanted: uint32(b[33]), View: View(b[34]), State: State(b[35]),
		Flags: Flags(order.Uint32(b[36:])), Notices: order.Uint32(b[40:]), Valid: valid == 1,
	}
	if i.Mode > MaxMode || i.Wanted > MaxMode || valid > 1 ||
		order.Uint32(b[48:]) != 0 || order.Uint64(b[56:]) != 0 {
		return Info{}, malformed("info of mode %d, wanted %d", i.Mode, i.Wanted)
	}
	var err error
	i.Path, err = text(b, infoHead, order.Uint32(b[44:]), "info")
	return i, err
}

// Encode writes the struct to b, which must have TextSize bytes.
func (i Info) Encode(b []byte) {
	_ = b[TextSize-1]
	order.PutUint64(b, i.Ino)
	order.PutUint64(b[8:], i.Generation)
	order.PutUint64(b[16:], i.Token)
	order.PutUint64(b[24:], uint64(i.Since))
	b[32], b[33], b[34], b[35] = byte(i.Mode), byte(i.Wanted), byte(i.View), byte(i.State)
	order.PutUint32(b[36:], uint32(i.Flags))
	order.PutUint32(b[40:], i.Notices)
	order.PutUint32(b[44:], putText(b, infoHead, i.Path))
	clear(b[48:infoHead])
	if i.Valid {
		order.PutUint32(b[52:], 1)
	}
}

// Verdict is what CmdCheck says of a sequencer.
type Verdict uint32

const (
	Unchecked Verdict = iota // going in
	Stands                   // the lock it names is held, with that token
	Passed                   // it is not held with that token (any more): refuse
)

// Check is the struct of CmdCheck and CmdSequencer. Sequencer returns the one of the descriptor's lock in
// Text (EINVAL without a lock). Check asks of the one in Text, on any descriptor of the mount (the commands
// use .lockfs/status), through the log and the holding host; EINVAL if it does not parse, EIO without quorum.
type Check struct {
	Verdict Verdict // out
	Token   uint64  // sequencer: out, its token; check: out, the highest token known of that resource
	Text    string  // sequencer: out; check: in
}

// DecodeCheck reads a payload.
func DecodeCheck(b []byte) (Check, error) {
	if err := expect(b, TextSize, "check"); err != nil {
		return Check{}, err
	}
	c := Check{Verdict: Verdict(order.Uint32(b)), Token: order.Uint64(b[8:])}
	if c.Verdict > Passed {
		return Check{}, malformed("verdict %d", c.Verdict)
	}
	var err error
	c.Text, err = text(b, checkHead, order.Uint32(b[4:]), "check")
	return c, err
}

// Encode writes the struct to b, which must have TextSize bytes. Text over MaxSequencer panics.
func (c Check) Encode(b []byte) {
	_ = b[TextSize-1]
	if len(c.Text) > MaxSequencer {
		panic("ioc: a sequencer is too long")
	}
	order.PutUint32(b, uint32(c.Verdict))
	order.PutUint64(b[8:], c.Token)
	order.PutUint32(b[4:], putText(b, checkHead, c.Text))
}
