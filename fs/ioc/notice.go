package ioc

// Kind is what a notice tells of; the words are those of name@events.
type Kind uint32

const (
	_ Kind = iota
	Granted
	Blocking
	Converted
	Released
	Deadlock
	Lost
	ValueChanged
	Invalid
	Created
	Removed
	Renamed
	Jeopardy
	Safe
	Leader
	HostJoined
	HostLeft
	Overflow
)

var kindNames = [...]string{"", "granted", "blocking", "converted", "released", "deadlock", "lost", "value", "invalid",
	"created", "removed", "renamed", "jeopardy", "safe", "leader", "host-joined", "host-left", "overflow"}

// String returns the word that name@events uses, "" for an unknown kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return ""
}

// Notice is the struct of CmdNotice, which takes the descriptor's oldest notice; EAGAIN if none is queued.
type Notice struct {
	Kind   Kind
	Mode   uint32 // of the descriptor's lock
	Wanted uint32 // blocking: the mode that the other asks for
	PID    uint32 // blocking: the other's process, where it is on this host, else 0
	Token  uint64 // of the descriptor's lock
	Time   int64  // ns since 1970
	Lost   uint32 // notices dropped before this one, since nobody took them
	Left   uint32 // notices still queued behind it
	Line   string // the line that name@events shows, without its newline
}

// DecodeNotice reads a payload.
func DecodeNotice(b []byte) (Notice, error) {
	if err := expect(b, TextSize, "notice"); err != nil {
		return Notice{}, err
	}
	n := Notice{
		Kind: Kind(order.Uint32(b)), Mode: order.Uint32(b[4:]), Wanted: order.Uint32(b[8:]), PID: order.Uint32(b[12:]),
		Token: order.Uint64(b[16:]), Time: int64(order.Uint64(b[24:])),
		Lost: order.Uint32(b[32:]), Left: order.Uint32(b[36:]),
	}
	if n.Mode > MaxMode || n.Wanted > MaxMode || order.Uint32(b[44:]) != 0 {
		return Notice{}, malformed("notice of mode %d, wanted %d", n.Mode, n.Wanted)
	}
	var err error
	n.Line, err = text(b, noticeHead, order.Uint32(b[40:]), "notice")
	return n, err
}

// Encode writes the struct to b, which must have TextSize bytes; a line over MaxLine is cut.
func (n Notice) Encode(b []byte) {
	_ = b[TextSize-1]
	order.PutUint32(b, uint32(n.Kind))
	order.PutUint32(b[4:], n.Mode)
	order.PutUint32(b[8:], n.Wanted)
	order.PutUint32(b[12:], n.PID)
	order.PutUint64(b[16:], n.Token)
	order.PutUint64(b[24:], uint64(n.Time))
	order.PutUint32(b[32:], n.Lost)
	order.PutUint32(b[36:], n.Left)
	order.PutUint32(b[40:], putText(b, noticeHead, n.Line))
	order.PutUint32(b[44:], 0)
}
