package client

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// Field is one `key=value` of a listing.
type Field struct{ Key, Value string }

// Fields are those of one lock, notice or status, in the order the daemon gave them.
type Fields []Field

// ParseLines reads one `key=value` a line.
func ParseLines(text string) Fields {
	var fs Fields
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			fs = append(fs, Field{key, unquote(value)})
		}
	}
	return fs
}

// ParseWords reads the words of one notice: a kind, then `key=value`s. A value with spaces is quoted as in Go.
func ParseWords(line string) (kind string, fs Fields) {
	kind, line, _ = strings.Cut(strings.TrimSpace(line), " ")
	for {
		line = strings.TrimLeft(line, " ")
		key, rest, ok := strings.Cut(line, "=")
		if !ok {
			return kind, fs
		}
		value := rest
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			value, line = quoted, rest[len(quoted):]
		} else {
			value, line, _ = strings.Cut(rest, " ")
		}
		fs = append(fs, Field{key, unquote(value)})
	}
}

func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil && len(s) > 1 && s[0] == '"' {
		return u
	}
	return s
}

// Get returns the value of a key, "" without it.
func (fs Fields) Get(key string) string {
	for _, f := range fs {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// MarshalJSON writes the fields as one object, in their order, whole numbers as numbers.
func (fs Fields) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(f.Key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && strconv.FormatInt(n, 10) == f.Value {
			b.WriteString(f.Value)
			continue
		}
		value, err := json.Marshal(f.Value)
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
