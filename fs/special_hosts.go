package fs

import (
	"strconv"
	"strings"
)

// HostFacts are what .lockfs/hosts/NAME says of one host of the cluster.
type HostFacts struct {
	Name  string
	Facts []Fact // in the order of the lines
}

// hostEntry is a host as a file of .lockfs/hosts.
type hostEntry struct {
	name string
	HostFacts
}

// hostEntries names the hosts of the cluster as files: a slash becomes an underscore, so do the names that every
// directory has, and a second equal name gets `#2`. One without a name is left out.
func (f *FS) hostEntries() []hostEntry {
	hosts := f.hosts()
	list := make([]hostEntry, 0, len(hosts))
	count := make(map[string]int, len(hosts))
	for _, h := range hosts {
		name := strings.ReplaceAll(h.Name, "/", "_")
		switch name {
		case "":
			continue
		case ".", "..":
			name = strings.ReplaceAll(name, ".", "_")
		}
		count[name]++
		if n := count[name]; n > 1 {
			name += "#" + strconv.Itoa(n)
		}
		list = append(list, hostEntry{name, h})
	}
	return list
}

func (f *FS) findHost(name string) (hostEntry, bool) {
	for _, e := range f.hostEntries() {
		if e.name == name {
			return e, true
		}
	}
	return hostEntry{}, false
}

// hostText is what the file of a host says.
func hostText(e hostEntry) []byte {
	var t lines
	t.put("host", e.Name)
	for _, fact := range e.Facts {
		t.put(fact.Key, fact.Value)
	}
	return t
}
