package queue

// Mode is one of the six VMS lock modes, or None. The order of the constants
// is that of the VMS manual; it is not the order of strength, since CW and PR
// have no order: see [Mode.Covers].
type Mode uint8

const (
	None Mode = iota // no lock at all
	NL               // null: keeps the resource, excludes nobody
	CR               // concurrent read: reads while others write
	CW               // concurrent write: writes while others read and write, unprotected
	PR               // protected read: the shared lock, no writers
	PW               // protected write: the update lock, one writer, CR readers
	EX               // exclusive
)

// modes is the number of values of Mode, None included.
const modes = int(EX) + 1

// compatible is the compatibility matrix of OpenVMS (Programming Concepts,
// table "Compatibility of Lock Modes") and of Linux fs/dlm/lock.c
// (__dlm_compat_matrix). It is symmetric; None is compatible with everything.
var compatible = [modes][modes]bool{
	//     None  NL    CR     CW     PR     PW     EX
	None: {true, true, true, true, true, true, true},
	NL:   {true, true, true, true, true, true, true},
	CR:   {true, true, true, true, true, true, false},
	CW:   {true, true, true, true, false, false, false},
	PR:   {true, true, true, false, true, false, false},
	PW:   {true, true, true, false, false, false, false},
	EX:   {true, true, false, false, false, false, false},
}

// covers says whether the row gives all rights that the column gives and
// excludes all that the column excludes. CW and PR do not cover each other.
var covers = [modes][modes]bool{
	//     None  NL     CR     CW     PR     PW     EX
	None: {true, false, false, false, false, false, false},
	NL:   {true, true, false, false, false, false, false},
	CR:   {true, true, true, false, false, false, false},
	CW:   {true, true, true, true, false, false, false},
	PR:   {true, true, true, false, true, false, false},
	PW:   {true, true, true, true, true, true, false},
	EX:   {true, true, true, true, true, true, true},
}

// join is the weakest mode that covers both.
var join = [modes][modes]Mode{
	//     None NL  CR  CW  PR  PW  EX
	None: {None, NL, CR, CW, PR, PW, EX},
	NL:   {NL, NL, CR, CW, PR, PW, EX},
	CR:   {CR, CR, CR, CW, PR, PW, EX},
	CW:   {CW, CW, CW, CW, PW, PW, EX},
	PR:   {PR, PR, PR, PW, PR, PW, EX},
	PW:   {PW, PW, PW, PW, PW, PW, EX},
	EX:   {EX, EX, EX, EX, EX, EX, EX},
}

// intent is the mode to hold on every ancestor (DESIGN 1.3).
var intent = [modes]Mode{CR: CR, CW: CW, PR: CR, PW: CW, EX: CW}

var modeNames = [modes]string{"None", "NL", "CR", "CW", "PR", "PW", "EX"}

// Compatible reports whether two locks of these modes can be granted on one
// resource at once.
func Compatible(a, b Mode) bool { return compatible[a][b] }

// Covers reports whether who has m needs nothing more to act under n: m gives
// all the rights of n and keeps out all that n keeps out.
func (m Mode) Covers(n Mode) bool { return covers[m][n] }

// Join returns the weakest mode that covers both. Join(CW, PR) is PW.
func Join(a, b Mode) Mode { return join[a][b] }

// Intent returns the mode that whoever holds m holds on every ancestor of the
// resource: CR for CR and PR, CW for CW, PW and EX, None for NL and None.
func (m Mode) Intent() Mode { return intent[m] }

// Reads reports whether m permits reading the value: CR or more.
func (m Mode) Reads() bool { return m >= CR }

// Writes reports whether m permits replacing the value: PW and EX.
func (m Mode) Writes() bool { return m >= PW }

// Valid reports whether m is a mode that can be asked for, NL to EX.
func (m Mode) Valid() bool { return m >= NL && m <= EX }

// String returns the mode's name in capitals, "EX".
func (m Mode) String() string {
	if int(m) < modes {
		return modeNames[m]
	}
	return "Mode(?)"
}

// ParseMode returns the mode of that name, in capitals or small letters
// ("EX", "ex"), and whether there is one. None has no name here.
func ParseMode(name string) (Mode, bool) {
	if len(name) != 2 {
		return None, false
	}
	for m := NL; m <= EX; m++ {
		n := modeNames[m]
		if name == n || name[0] == n[0]|0x20 && name[1] == n[1]|0x20 {
			return m, true
		}
	}
	return None, false
}

// modeSet is a set of modes, bit m for mode m.
type modeSet uint8

func (m Mode) bit() modeSet { return 1 << m }

// conflicts is the complement of compatible, a set a row.
var conflicts = func() (t [modes]modeSet) {
	for a := range modes {
		for b := range modes {
			if !compatible[a][b] {
				t[a] |= Mode(b).bit()
			}
		}
	}
	return t
}()
