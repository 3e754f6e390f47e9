package daemon

import (
	"errors"
	"io"
)

func serve(o *Options, out, log io.Writer) error { return errors.New("not wired yet") }
