package web

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"sync"
	"time"
)

// Page is what the page shows.
type Page struct {
	Host     string
	State    string
	NotReady string // why, "" if it is ready
	Facts    []Fact
	Hosts    []Host
	Locks    *Locks // nil: no names of files and processes are shown
	Made     time.Time
}

// Fact is one line of the first table.
type Fact struct{ Key, Value string }

// Host is a host of the cluster.
type Host struct {
	Name, Role, State, Address, Version string

	Session uint64 // 0: none
	Reports uint64 // locks and waits that it told of
}

// Locks are the locks and waits that strangers may see.
type Locks struct {
	Held, Waiting []Lock
	More          bool // than are shown
	Deadlocks     []Deadlock
}

// Lock is a lock or a request.
type Lock struct {
	Path, Mode, Who, Comm string

	Age       time.Duration
	BlockedBy []string
}

// Deadlock is one that was broken.
type Deadlock struct {
	Victim, Path string

	Ago   time.Duration
	Waits []string
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// pageTime is how long a page is shown again before a new one is made.
const pageTime = time.Second

// lastPage is the page as it was made last.
type lastPage struct {
	make func() *Page

	mu   sync.Mutex
	made time.Time
	text []byte
}

func (p *lastPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := p.now()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(text)
}

// now returns the page, made anew if it is old. Whoever comes meanwhile waits for it.
func (p *lastPage) now() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.text != nil && time.Since(p.made) < pageTime {
		return p.text, nil
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p.make()); err != nil {
		return nil, err
	}
	p.text, p.made = b.Bytes(), time.Now()
	return p.text, nil
}
