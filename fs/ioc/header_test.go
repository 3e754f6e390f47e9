package ioc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestHeader compiles lockfs.h and asks the C compiler what it makes of it: numbers, flags and the places of
// fields must be those of this package.
func TestHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "print.c")
	program := `#include <stdio.h>
#include <stddef.h>
#include "lockfs.h"
int main(void) {
	printf("%u %u %u %u %u %u %u %u %u\n", (unsigned)LOCKFS_IOC_REQUEST, (unsigned)LOCKFS_IOC_CONVERT, (unsigned)LOCKFS_IOC_TOKEN,
		(unsigned)LOCKFS_IOC_SEQUENCER, (unsigned)LOCKFS_IOC_NOTICE, (unsigned)LOCKFS_IOC_VALUE_GET,
		(unsigned)LOCKFS_IOC_VALUE_SET, (unsigned)LOCKFS_IOC_INFO, (unsigned)LOCKFS_IOC_CHECK);
	printf("%zu %zu %zu %zu %zu %zu\n", offsetof(struct lockfs_value, data), offsetof(struct lockfs_notice, line),
		offsetof(struct lockfs_info, path), offsetof(struct lockfs_check, text),
		offsetof(struct lockfs_info, valid), offsetof(struct lockfs_request, valid));
	printf("%d %d %d %d %d\n", LOCKFS_ASYNC, LOCKFS_OVERFLOW, LOCKFS_LOST_LOCK, LOCKFS_VIEW_DLMFS, LOCKFS_EX);
	return 0;
}
`
	if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "print")
	if out, err := exec.Command(cc, "-Wall", "-Werror", "-I.", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintln(CmdRequest, CmdConvert, CmdToken, CmdSequencer, CmdNotice, CmdValueGet, CmdValueSet, CmdInfo, CmdCheck) +
		fmt.Sprintln(valueHead, noticeHead, infoHead, checkHead, 52, 40) +
		fmt.Sprintln(uint32(Async), uint32(Overflow), uint32(LostLock), uint32(ViewDlmfs), MaxMode)
	if string(out) != want {
		t.Errorf("C says\n%swant\n%s", out, want)
	}
}
