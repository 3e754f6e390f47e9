package cluster

import (
	"errors"
)

var errQuorum = errors.New("the cluster would be without a quorum")
