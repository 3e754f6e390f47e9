package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/exit"
)

// maxConfig bounds the size of a configuration file.
const maxConfig = 1 << 20

// load sets the flags that the command line did not set: from the environment (an empty variable counts as none), else
// from the configuration file. It returns where each value of these came from.
func load(flags *pflag.FlagSet, env func(string) string) (sources map[string]string, failed error) {
	config, _ := flags.GetString("config")
	if value := env(envName("config")); value != "" && !flags.Changed("config") {
		config = value
	}
	file := settingsFile{}
	if config != "" {
		var err error
		if file, err = readSettings(config, flags); err != nil {
			return nil, err
		}
	}
	sources = map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if failed != nil || f.Changed || !settable(f) {
			return
		}
		if value := env(envName(f.Name)); value != "" {
			sources[f.Name] = envName(f.Name)
			if err := flags.Set(f.Name, value); err != nil {
				failed = &exit.Error{Op: "mount", Path: fmt.Sprintf("%s=%q", envName(f.Name), value), What: cause(err),
					Do: "see lockfs mount --help", Code: exit.Usage}
			}
			return
		}
		if value, ok := file.values[f.Name]; ok {
			sources[f.Name] = fmt.Sprintf("%s:%d: %s", file.name, file.line(f.Name), f.Name)
			if err := flags.Set(f.Name, value); err != nil {
				failed = file.fault(f.Name, fmt.Sprintf("%q: %s", value, cause(err)))
			}
		}
	})
	return sources, failed
}

// settable reports whether a flag is a setting: one that the environment and the file may give. To reset is done once, not at
// every start.
func settable(f *pflag.Flag) bool { return f.Name != "help" && f.Name != "config" && f.Name != "reset" }

// envName is the variable of a flag: LOCKFS_DATA_DIR for data-dir.
func envName(flag string) string {
	return "LOCKFS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// cause strips what pflag says of the flag, which the message names already.
func cause(err error) string {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) && value.Unwrap() != nil {
		err = value.Unwrap()
	}
	return err.Error()
}

// settingsFile is a configuration file: its values as text, by the names of flags.
type settingsFile struct {
	name   string
	text   []byte
	values map[string]string
}

// readSettings reads a TOML file whose keys are the names of flags. Anything else in it is an error that names
// the key and its line.
func readSettings(name string, flags *pflag.FlagSet) (settingsFile, error) {
	s := settingsFile{name: name, values: map[string]string{}}
	stat, err := os.Stat(name)
	if err != nil {
		return s, exit.Of("mount", "--config "+name, err)
	}
	if !stat.Mode().IsRegular() || stat.Size() > maxConfig {
		return s, &exit.Error{Op: "mount", Path: "--config " + name, What: "not a regular file of at most 1 MiB",
			Do: "name a TOML file", Code: exit.Usage}
	}
	if s.text, err = os.ReadFile(name); err != nil {
		return s, exit.Of("mount", "--config "+name, err)
	}
	var raw map[string]any
	if err := toml.Unmarshal(s.text, &raw); err != nil {
		line, what := 0, err.Error()
		var parse toml.ParseError
		if errors.As(err, &parse) {
			line, what = parse.Position.Line, parse.Message
		}
		return s, &exit.Error{Op: "mount", Path: fmt.Sprintf("%s:%d", name, line), What: "not TOML: " + what,
			Do: `write lines like session-ttl = "10s"`, Code: exit.Usage}
	}
	keys := make([]string, 0, len(raw))
	for key := range raw {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return s.line(a) - s.line(b) })
	for _, key := range keys {
		if f := flags.Lookup(key); f == nil || !settable(f) {
			return s, s.fault(key, "no such setting")
		}
		value, ok := plain(raw[key])
		if !ok {
			return s, s.fault(key, "want a string, a number or true or false")
		}
		s.values[key] = value
	}
	return s, nil
}

// plain is a TOML value as a flag takes it; a list of strings is joined with commas.
func plain(v any) (string, bool) {
	switch v := v.(type) {
	case string, bool, int64, float64:
		return fmt.Sprint(v), true
	case []any:
		var parts []string
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return "", false
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}

// fault is an error about one key.
func (s settingsFile) fault(key, what string) error {
	return &exit.Error{Op: "mount", Path: fmt.Sprintf("%s:%d", s.name, s.line(key)), What: fmt.Sprintf("%s: %s", key, what),
		Do: "the keys are the names of the flags of lockfs mount --help", Code: exit.Usage}
}

// line finds the line that sets a key, from 1. The TOML library tells none for a key that it could decode.
func (s settingsFile) line(key string) int {
	quoted := regexp.QuoteMeta(key)
	at := regexp.MustCompile(`(?m)^[ \t]*(?:\[+[ \t]*)?["']?` + quoted + `["']?[ \t]*[=.\]]`).FindIndex(s.text)
	if at == nil {
		return 1
	}
	return 1 + bytes.Count(s.text[:at[0]], []byte{'\n'})
}
