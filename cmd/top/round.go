package top

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockfs/lockfs/cmd/client"
)

// round is what was read at one time.
type round struct {
	time  time.Time
	took  time.Duration // to read it
	hosts []client.Fields
	rows  []row
}

// row is a lock or a request.
type row struct {
	client.Lock
	waiters int // requests for the same resource that this one may hold up: all for a lock, those behind it for a request
}

// read takes a look at what is held and awaited at and below a path.
func read(m client.Mount, path string) (round, error) {
	r := round{time: time.Now()}
	var err error
	if r.hosts, err = m.Hosts("top"); err != nil {
		return r, err
	}
	held, err := m.Held(path)
	if err != nil {
		return r, err
	}
	waiting, err := m.Waiting(path)
	if err != nil {
		return r, err
	}
	queue := map[string]int{}
	for _, l := range waiting {
		queue[l.Path]++
	}
	for _, l := range client.Merge(held, waiting) {
		r.rows = append(r.rows, row{l, max(0, queue[l.Path]-l.Place)})
	}
	r.took = time.Since(r.time)
	return r, nil
}

// count returns how many are held and how many wait.
func (r *round) count() (held, waiting int) {
	for _, x := range r.rows {
		if x.Waiting() {
			waiting++
		}
	}
	return len(r.rows) - waiting, waiting
}

// object is a round for programs.
type object struct {
	Time    time.Time       `json:"time"`
	Held    int             `json:"held"` // in all, as Waiting
	Waiting int             `json:"waiting"`
	Hosts   []client.Fields `json:"hosts"`
	Locks   []client.Fields `json:"locks"` // those that were selected
}

func (r *round) object(rows []row) object {
	o := object{Time: r.time, Hosts: r.hosts, Locks: make([]client.Fields, len(rows))} // not nil: JSON shows it
	o.Held, o.Waiting = r.count()
	for i, x := range rows {
		o.Locks[i] = append(x.All(), client.Field{Key: "waiters", Value: strconv.Itoa(x.waiters)})
	}
	return o
}

// sortKey is what a table is sorted by.
type sortKey struct {
	name    string
	letter  byte // the key that chooses it
	compare func(a, b row) int
}

// sortKeys are those that there are; the first is that of the beginning.
var sortKeys = []sortKey{
	{"age", 'a', func(a, b row) int { return a.begun().Compare(b.begun()) }},
	{"waiters", 'w', func(a, b row) int { return cmp.Compare(b.waiters, a.waiters) }},
	{"path", 'p', func(a, b row) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Place, b.Place))
	}},
	{"mode", 'm', func(a, b row) int { return cmp.Compare(b.Mode, a.Mode) }},
}

// begun is the time of the grant or the request; what has none comes last.
func (r row) begun() time.Time {
	if r.Since.IsZero() {
		return time.Unix(1<<40, 0)
	}
	return r.Since
}

// selection is which rows are shown, and in which order.
type selection struct {
	key     int // of sortKeys
	reverse bool
	filter  string
}

// of returns the rows of a round that are shown. Equal ones stay in the order of their paths and queues.
func (s selection) of(rows []row) []row {
	list := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !r.has(s.filter) })
	slices.SortStableFunc(list, func(a, b row) int {
		c := sortKeys[s.key].compare(a, b)
		if s.reverse {
			return -c
		}
		return c
	})
	return list
}

// has reports whether a text is in what is shown of a row, in whatever case.
func (r row) has(text string) bool {
	if text == "" {
		return true
	}
	all := strings.Join(r.cells(time.Time{}), " ")
	return strings.Contains(strings.ToLower(all), strings.ToLower(text))
}

// columns are the head of the table. The one that is cut to fit is the first.
var columns = []string{"RESOURCE", "MODE", "STATE", "OWNER", "USER", "AGE", "WAITERS", "BLOCKED-BY", "COMMAND"}

// cells are a row's, in the order of the columns, fit to be shown.
func (r row) cells(now time.Time) []string {
	waiters, by := "-", "-"
	if r.waiters > 0 {
		waiters = strconv.Itoa(r.waiters)
	}
	if list := r.BlockedBy(); len(list) > 0 {
		by = client.Printable(list[0])
		if len(list) > 1 {
			by += "+" + strconv.Itoa(len(list)-1)
		}
	}
	return []string{client.Printable(r.Path), r.Asks(), r.State(), client.Printable(r.Who()), r.User(), client.Age(now, r.Since), waiters, by, r.Command()}
}
