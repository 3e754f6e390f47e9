package daemon

import (
	"os"

	"github.com/spf13/pflag"
)

// DataDirFlags adds --data-dir and --config to a command that works on the data directory itself. The function gives the
// directory that `lockfs mount` would use with these flags, the environment and the file.
func DataDirFlags(f *pflag.FlagSet) (dir func() (string, error)) {
	data := f.String("data-dir", "", "the daemon's data directory is `DIR` (default as lockfs mount has it)")
	config := f.String("config", "", "its settings are in the TOML `FILE`")
	return func() (string, error) {
		o, all := &Options{}, pflag.NewFlagSet("mount", pflag.ContinueOnError)
		o.Register(all)
		for name, value := range map[string]string{"data-dir": *data, "config": *config} {
			if value != "" {
				all.Set(name, value)
			}
		}
		if _, err := load(all, os.Getenv); err != nil {
			return "", err
		}
		if err := o.completeDataDir(); err != nil {
			return "", err
		}
		return o.DataDir, nil
	}
}
