// Command loopback is go-fuse's own loopback file system, example/loopback, with the one option that the comparison
// needs: locks are passed on to it, as lockfs has to have them, instead of being the kernel's own affair.
//
//	loopback MOUNTPOINT ORIGINAL
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: loopback MOUNTPOINT ORIGINAL")
	}
	root, err := fs.NewLoopbackRoot(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	second := time.Second
	server, err := fs.Mount(os.Args[1], root, &fs.Options{
		AttrTimeout: &second, EntryTimeout: &second, NullPermissions: true,
		MountOptions: fuse.MountOptions{FsName: os.Args[2], Name: "loopback", EnableLocks: true, DirectMount: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		if err := server.Unmount(); err != nil {
			log.Print(err)
		}
	}()
	fmt.Println("ready")
	server.Wait()
}
