package fstab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/daemon"
	"github.com/lockfs/lockfs/fs"
)

// request is what mount(8) asks for.
type request struct {
	dir     string
	flags   []string // of lockfs mount
	also    []string // VIEW:MOUNTPOINT
	view    string
	log     string // file, or "journal"; empty: as it is usual here
	fake    bool
	verbose bool
}

// mere are options of mount(8), systemd and others that mean nothing to lockfs, or what it does anyway.
var mere = map[string]bool{
	"defaults": true, "rw": true, "auto": true, "noauto": true, "nofail": true, "_netdev": true, "nosuid": true, "nodev": true, "exec": true,
	"async": true, "atime": true, "noatime": true, "relatime": true, "norelatime": true, "strictatime": true, "nodiratime": true, "diratime": true,
	"nouser": true, "group": true, "owner": true, "user": true, "users": true, "suid": true, "dev": true, "silent": true, "loud": true, "nolazytime": true,
}

// parse reads the command line that mount(8) makes: SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS].
func parse(args []string) (r request, err error) {
	var words, options []string
	sloppy := false
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			words = append(words, arg)
			continue
		}
		for rest := arg[1:]; rest != ""; rest = rest[1:] {
			switch rest[0] {
			case 's':
				sloppy = true
			case 'f':
				r.fake = true
			case 'v':
				r.verbose = true
			case 'n':
			case 'o', 'N', 't':
				value := rest[1:]
				if value == "" {
					if len(args) == 0 {
						return r, fmt.Errorf("-%c wants a value", rest[0])
					}
					value, args = args[0], args[1:]
				}
				if rest[0] == 'o' {
					options = append(options, value)
				}
				rest = rest[:1]
			default:
				return r, fmt.Errorf("-%c is no option of mount.lockfs", rest[0])
			}
		}
	}
	if len(words) != 2 {
		return r, fmt.Errorf("want SOURCE DIR [-o OPTIONS], as mount(8) gives them")
	}
	r.dir = words[1]
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		if err := r.option(option); err != nil && !(sloppy && unknown(option)) {
			return r, err
		}
	}
	return r, nil
}

// flags are those of lockfs mount.
var flags = func() *pflag.FlagSet {
	f := pflag.NewFlagSet("mount", pflag.ContinueOnError)
	(&daemon.Options{}).Register(f)
	return f
}()

// flagOf is the flag of lockfs mount that an option stands for, nil if there is none. To reset is done once, not at every
// mount.
func flagOf(name string) *pflag.Flag {
	if name == "reset" {
		return nil
	}
	return flags.Lookup(name)
}

func unknown(option string) bool {
	name, _, _ := strings.Cut(option, "=")
	return flagOf(name) == nil
}

// option takes one option.
func (r *request) option(option string) error {
	name, value, given := strings.Cut(option, "=")
	switch {
	case option == "" || mere[option] || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || name == "comment" || name == "user":
		return nil
	case name == "ro":
		return fmt.Errorf("ro: locks cannot be taken without writing; mount with rw, and let the rights of files say who may what")
	case slices.Contains([]string{"remount", "bind", "rbind", "move"}, option):
		return fmt.Errorf("%s: settings are changed by umount and mount", name)
	case name == "log" && value != "":
		r.log = value
		return nil
	case name == "view":
		if _, ok := fs.ParseView(value); !ok {
			return fmt.Errorf("view=%s: the views are lock, posix and dlmfs", value)
		}
		r.view = value
		return nil
	case name == "also" && value != "":
		r.also = append(r.also, value)
		return nil
	}
	f := flagOf(name)
	switch {
	case f == nil:
		return fmt.Errorf("%s: no such option; they are the flags of lockfs mount without --, and view=, also=, log=", name)
	case !given && f.NoOptDefVal == "":
		return fmt.Errorf("%s: wants a value, %s=…", name, name)
	case !given:
		value = f.NoOptDefVal
	}
	r.flags = append(r.flags, "--"+name+"="+value)
	return nil
}

// argv is the command line of the daemon, from the word mount on.
func (r request) argv() []string {
	dir := r.dir
	if r.view != "" {
		dir = r.view + ":" + dir
	} else if strings.Contains(dir, ":") && !strings.HasPrefix(dir, "/") {
		dir = "./" + dir
	}
	argv := append([]string{"mount"}, r.flags...)
	return append(append(argv, dir), r.also...)
}
