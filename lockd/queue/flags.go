package queue

import (
	"errors"
	"fmt"
	"strings"
)

// Flags are the options of a request. Their values, like those of Mode, are part
// of the replicated log: append, never renumber.
type Flags uint16

const (
	// NoQueue refuses what cannot be granted at once (LCK$M_NOQUEUE).
	NoQueue Flags = 1 << iota
	// Expedite grants a new NL request whatever waits (LCK$M_EXPEDITE). In
	// lockfs every NL request is, so the flag changes nothing here.
	Expedite
	// QueCvt puts a conversion behind those that wait, though it could be
	// granted at once (LCK$M_QUECVT).
	QueCvt
	// HeadQue puts a request at the head of its queue (DLM_LKF_HEADQUE). A
	// new one still waits for the waiting conversions.
	HeadQue
	// AltPR takes PR where the mode asked for cannot be had (DLM_LKF_ALTPR).
	AltPR
	// AltCW takes CW where the mode asked for, and PR if AltPR is set too,
	// cannot be had (DLM_LKF_ALTCW).
	AltCW
	// NoBAST is carried: whoever has the lock is not told that it blocks others.
	NoBAST
	// NoDlckWt is carried: the wait is not part of a deadlock (LCK$M_NODLCKWT).
	NoDlckWt
	// NoDlckBlk is carried: the lock blocks nobody in a deadlock
	// (LCK$M_NODLCKBLK).
	NoDlckBlk
	// Try is carried: a request that refuses to wait for users of the lock but
	// waits for a recall of what is merely cached (DESIGN 1.2, 3.3). The queue
	// lets it wait; the state refuses it when a holder says that it is in use.
	// Not together with NoQueue, which refuses at once.
	Try

	allFlags = Try<<1 - 1
)

var flagNames = [...]string{"noqueue", "expedite", "quecvt", "headque", "altpr", "altcw", "nobast", "nodlckwt", "nodlckblk", "try"}

// String returns the names of the flags, joined by "|".
func (f Flags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := f &^ allFlags; rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint16(rest)))
	}
	return strings.Join(names, "|")
}

// ParseFlag returns the flag of that name, as String spells it.
func ParseFlag(name string) (Flags, bool) {
	for i, n := range flagNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// Errors of [Flags.Check].
var (
	ErrMode     = errors.New("no such lock mode")
	ErrFlag     = errors.New("no such request flag")
	ErrExpedite = errors.New("expedite is for new requests in mode NL only, and not with noqueue")
	ErrQueCvt   = errors.New("quecvt is for conversions to a mode that the present one does not cover")
)

// Check reports what is wrong with a request for mode to under these flags:
// a conversion from mode from, or a new request where from is None. The rules
// are those of set_lock_args and validate_lock_args in Linux fs/dlm/lock.c
// (with __quecvt_compat_matrix). The queue itself does not check.
func (f Flags) Check(from, to Mode) error {
	switch {
	case !to.Valid() || int(from) >= modes:
		return ErrMode
	case f&^allFlags != 0:
		return ErrFlag
	case f&Expedite != 0 && (from != None || to != NL || f&(QueCvt|NoQueue) != 0):
		return ErrExpedite
	case f&QueCvt != 0 && (from == None || from.Covers(to)):
		return ErrQueCvt
	}
	return nil
}
