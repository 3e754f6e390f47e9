package client

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
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
			fs = append(fs, Field{key, unescape(value)})
		}
	}
	return fs
}

// ParseWords reads the words of one notice: a kind, then `key=value`s.
func ParseWords(line string) (kind string, fs Fields) {
	for word := range strings.FieldsSeq(line) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case ok:
			fs = append(fs, Field{key, unescape(value)})
		case kind == "":
			kind = word
		}
	}
	return kind, fs
}

// unescape undoes the escapes of listings and of /proc/self/mountinfo: a backslash and three octal digits are a byte.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Printable returns a text as it can be shown on a terminal: what is not printable is escaped.
func Printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 && utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
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
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	b.WriteByte('{')
	for i, f := range fs {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := enc.Encode(f.Key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && strconv.FormatInt(n, 10) == f.Value {
			b.WriteString(f.Value)
		} else if err := enc.Encode(f.Value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
