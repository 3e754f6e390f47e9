// Command lockfs is the lock file system: the daemon that mounts it and the commands that look at it.
package main

import (
	"os"

	"github.com/lockfs/lockfs/cmd/cli"
)

func main() { os.Exit(cli.Main()) }
