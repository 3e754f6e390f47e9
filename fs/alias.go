package fs

import (
	"strings"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

// aliasKind says what an alias names.
type aliasKind uint8

const (
	aliasMode      aliasKind = iota + 1 // a lock mode: name@ex
	aliasEvents                         // name@events
	aliasToken                          // name@token
	aliasSequencer                      // name@sequencer
)

// alias is what the part of a name behind its last @ asks for.
type alias struct {
	kind  aliasKind
	mode  queue.Mode    // aliasMode
	wait  time.Duration // gives up after it; 0 waits for ever, negative not at all
	async bool          // OPEN returns at once and poll says when it is granted
}

// maxAliasWait bounds wait=; a longer one is a mistake.
const maxAliasWait = 10 * 365 * 24 * time.Hour

// aliasWords are the known words. They are small letters only: x@EX is a plain name.
var aliasWords = map[string]alias{
	"nl":        {kind: aliasMode, mode: queue.NL},
	"cr":        {kind: aliasMode, mode: queue.CR},
	"cw":        {kind: aliasMode, mode: queue.CW},
	"pr":        {kind: aliasMode, mode: queue.PR},
	"pw":        {kind: aliasMode, mode: queue.PW},
	"ex":        {kind: aliasMode, mode: queue.EX},
	"events":    {kind: aliasEvents},
	"token":     {kind: aliasToken},
	"sequencer": {kind: aliasSequencer},
}

// parseAlias splits a name at its last @. Where a known word follows it, and then the end or a comma (DESIGN 1.2), base
// is the part before and a says what was asked; options that do not parse, and an empty base, are EINVAL. Any
// other name is plain: a.kind is 0 and base is the name.
func parseAlias(name string) (base string, a alias, errno syscall.Errno) {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return name, alias{}, 0
	}
	word, options, more := strings.Cut(name[at+1:], ",")
	a, known := aliasWords[word]
	switch {
	case !known:
		return name, alias{}, 0
	case at == 0:
		return "", a, syscall.EINVAL
	case more && !a.parseOptions(options):
		return name[:at], a, syscall.EINVAL
	}
	return name[:at], a, 0
}

// parseOptions reads what follows the first comma: wait=DURATION and async, each at most once, for modes only.
func (a *alias) parseOptions(options string) bool {
	if a.kind != aliasMode {
		return false
	}
	var waits bool
	for option := range strings.SplitSeq(options, ",") {
		value, isWait := strings.CutPrefix(option, "wait=")
		switch {
		case isWait && !waits:
			d, ok := parseWait(value)
			if !ok {
				return false
			}
			a.wait, waits = d, true
		case option == "async" && !a.async:
			a.async = true
		default:
			return false
		}
	}
	return true
}

// parseWait reads a duration as Go writes it ("5s", "1m30s", "250ms"), without a sign. Zero is no wait at all.
func parseWait(s string) (time.Duration, bool) {
	if s == "" || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil || d > maxAliasWait:
		return 0, false
	case d == 0:
		return -1, true
	}
	return d, true
}

// isAliasName reports whether a name is an alias, well formed or not: it can then not be made, renamed or removed.
func isAliasName(name string) bool {
	_, a, _ := parseAlias(name)
	return a.kind != 0
}
