package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/cert"
	"github.com/lockfs/lockfs/cmd/exit"
)

func certs() *cobra.Command {
	return group(&cobra.Command{
		Use:   "cert",
		Short: "make the certificates of a cluster's hosts",
		Long: `cert makes what hosts know each other by (mutual TLS 1.3): once the authority (CA) of the cluster, then one certificate for
each host. Who has a certificate of the CA is let in, so a CA is for one cluster alone, and its key stays where only the
operator gets to it.`,
		Example: `  lockfs cert ca
  lockfs cert host host1 --address 10.0.0.1
  scp ca.pem host1.pem host1-key.pem host1:/etc/lockfs/`,
	}, certCA(), certHost())
}

// daysFlag adds --days.
func daysFlag(fs *pflag.FlagSet, usual cert.Days) *int {
	return fs.Int("days", int(usual), "let it last for `N` days")
}

func daysOf(op string, n int) (cert.Days, error) {
	if n < 1 || n > int(cert.MaxDays) {
		return 0, exit.Usagef(op, "--days %d: want 1 to %d", n, cert.MaxDays)
	}
	return cert.Days(n), nil
}

// dirFlag adds --dir.
func dirFlag(fs *pflag.FlagSet) *string {
	return fs.String("dir", ".", "write into `DIR`")
}

func certCA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca [FLAGS]",
		Short: "make the authority of a cluster: ca.pem and ca-key.pem",
		Long: `ca makes the certificate ca.pem, which goes to all hosts (--tls-ca), and its key ca-key.pem, which signs hosts'
certificates and goes to none. Files that are there are never overwritten.

To replace a CA, give every host both in one file (cat ca.pem new/ca.pem) and restart them one after the other, then
give them certificates of the new one, then take the old one out in the same way.`,
		Args:        arguments(0, 0, ""),
		Annotations: exits("0   made", "64  the command line is wrong", "73  a file is there already, or cannot be made"),
	}
	cmd.Flags().SortFlags = false
	dir, days := dirFlag(cmd.Flags()), daysFlag(cmd.Flags(), cert.CADays)
	title := cmd.Flags().String("name", "lockfs", "call it `NAME`, for people")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := daysOf("cert ca", *days)
		if err != nil {
			return err
		}
		pair, err := cert.NewCA(*title, d, time.Now())
		if err != nil {
			return err
		}
		return writePair(cmd, pair, filepath.Join(*dir, "ca.pem"), filepath.Join(*dir, "ca-key.pem"))
	}
	return cmd
}

func certHost() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host NAME --address ADDR [FLAGS]",
		Short: "make a host's certificate: NAME.pem and NAME-key.pem",
		Long: `host makes the certificate NAME.pem and the key NAME-key.pem for a host (--tls-cert, --tls-key), signed by the CA. ADDR is what
other hosts dial: the address in its --advertise or, without that, its --bind. The certificate lasts no longer than
the CA's.

To renew one, make it in another directory and put both files in the place of the old ones; the daemon takes it without
a restart, and warns for the last 30 days.`,
		Example: `  lockfs cert host host1 --address 10.0.0.1
  lockfs cert host host2 --address 10.0.0.2,host2.example.com --days 365`,
		Args: arguments(1, 1, "NAME"),
		Annotations: exits("0   made", "64  the command line is wrong", "66  the CA's files cannot be used",
			"73  a file is there already, or cannot be made"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	addresses := f.StringSlice("address", nil, "others reach the host under `ADDR`, IP address or DNS name; can be repeated")
	caCert := f.String("ca", "ca.pem", "sign with the authority in `FILE`")
	caKey := f.String("ca-key", "ca-key.pem", "whose key is in `FILE`")
	dir, days := dirFlag(f), daysFlag(f, cert.HostDays)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		const op = "cert host"
		d, err := daysOf(op, *days)
		if err != nil {
			return err
		}
		if len(*addresses) == 0 {
			return exit.Usagef(op, "--address is missing: a certificate is for the address that other hosts dial")
		}
		if args[0] == "" || args[0] == "ca" || strings.ContainsAny(args[0], "/\x00") || strings.HasPrefix(args[0], ".") {
			return exit.Usagef(op, "%q names no host", args[0])
		}
		ca, err := readCA(*caCert, *caKey)
		if err != nil {
			return err
		}
		pair, err := ca.Host(args[0], *addresses, d, time.Now())
		if err != nil {
			return &exit.Error{Op: op, Path: args[0], What: err.Error(), Code: exit.Usage}
		}
		return writePair(cmd, pair, filepath.Join(*dir, args[0]+".pem"), filepath.Join(*dir, args[0]+"-key.pem"))
	}
	return cmd
}

func readCA(certFile, keyFile string) (*cert.Authority, error) {
	wrong := func(file string, err error) error {
		e := &exit.Error{Op: "cert host", Path: file, What: err.Error(), Do: "lockfs cert ca makes a CA; name its files with --ca and --ca-key",
			Code: exit.NoInput}
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			e.What = path.Err.Error()
		}
		return e
	}
	text, err := os.ReadFile(certFile)
	if err != nil {
		return nil, wrong(certFile, err)
	}
	key, err := cert.ReadSecret(keyFile)
	if err != nil {
		return nil, wrong(keyFile, err)
	}
	ca, err := cert.ParseAuthority(cert.Pair{Cert: text, Key: key})
	if err != nil {
		return nil, wrong(certFile, err)
	}
	return ca, nil
}

// writePair writes both files and says so.
func writePair(cmd *cobra.Command, pair cert.Pair, certFile, keyFile string) error {
	if err := pair.Write(certFile, keyFile); err != nil {
		return notMade(name(cmd), err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", certFile, keyFile)
	return nil
}

// notMade is why a new file is not there.
func notMade(op string, err error) error {
	e := &exit.Error{Op: op, What: err.Error(), Code: exit.NoCreate}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		e.Path, e.What = path.Path, path.Err.Error()
	}
	if errors.Is(err, fs.ErrExist) {
		e.What, e.Do = "it is there already and is not overwritten", "move it away, or name another place"
	}
	return e
}

func keygen() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen [FILE]",
		Short: "make the key that encrypts a cluster's gossip",
		Long: `keygen writes a new random key, in base64, to FILE, which only its owner may read and which is never overwritten, or without FILE
to standard output. The same key goes to all hosts (--gossip-key-file).`,
		Example:     `  lockfs keygen gossip.key && scp gossip.key host1:/etc/lockfs/`,
		Args:        arguments(0, 1, "FILE"),
		Annotations: exits("0   made", "64  the command line is wrong", "73  FILE is there already, or cannot be made"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := cert.NewGossipKey()
			if len(args) == 0 {
				_, err := fmt.Fprint(cmd.OutOrStdout(), key)
				return err
			}
			if err := cert.WriteNew(args[0], []byte(key), 0o600); err != nil {
				return notMade("keygen", err)
			}
			return nil
		},
	}
}
