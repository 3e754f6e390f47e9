package harness

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// ownEnv says that this process is in a mount namespace of its own already.
const ownEnv = "LOCKFS_TEST_OWN_MOUNTS"

// OwnMounts runs this very test binary again in a mount namespace of its own, and ends with its exit code; there it
// returns at once. Nobody else can then come to have a copy of what is mounted, as every new namespace on the machine has
// of what the one that it is made from has mounted. Where that is not permitted, and so no mount either, it just returns.
func OwnMounts() {
	if os.Getenv(ownEnv) != "" || os.Geteuid() != 0 {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread() // the signal comes when the thread ends that started it
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), ownEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var ended *exec.ExitError
	switch err := cmd.Run(); {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &ended):
		os.Exit(max(ended.ExitCode(), 1))
	}
}
