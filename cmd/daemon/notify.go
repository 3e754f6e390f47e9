package daemon

import (
	"net"
	"os"
	"strings"
)

// notify tells the service manager about this process's state, as sd_notify(3) does; without NOTIFY_SOCKET it does
// nothing. state is one or more lines such as READY=1.
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:] // an abstract socket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
