package fs

import (
	"errors"
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// ioctl answers a request of package ioc. The payload that came in is decoded, answered, and encoded into the payload
// that goes out.
func (f *FS) ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, payload []byte, out *fuse.IoctlOut, reply []byte) fuse.Status {
	size := ioc.Size(in.Cmd)
	if size == 0 {
		return fuse.Status(syscall.ENOTTY)
	}
	if len(payload) != size || len(reply) < size {
		return fuse.EINVAL
	}
	c := f.call(&in.InHeader, cancel)
	reply = reply[:size]
	if in.Cmd == ioc.CmdCheck {
		return fuse.Status(f.ioctlCheck(c, payload, reply))
	}
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.Status(syscall.ENOTTY)
	}
	return fuse.Status(ioctls[in.Cmd](h, c, payload, reply))
}

// ioctls are the requests on a descriptor of the tree.
var ioctls = map[uint32]func(h *handle, c *lockd.Call, payload, reply []byte) syscall.Errno{
	ioc.CmdRequest:   (*handle).ioctlRequest,
	ioc.CmdConvert:   (*handle).ioctlConvert,
	ioc.CmdToken:     (*handle).ioctlToken,
	ioc.CmdSequencer: (*handle).ioctlSequencer,
	ioc.CmdNotice:    (*handle).ioctlNotice,
	ioc.CmdValueGet:  (*handle).ioctlValueGet,
	ioc.CmdValueSet:  (*handle).ioctlValueSet,
	ioc.CmdInfo:      (*handle).ioctlInfo,
}

// ioctlFlags are the request flags as the lock manager knows them; Async is fs's own.
var ioctlFlags = [...]struct {
	from ioc.Flags
	to   queue.Flags
}{
	{ioc.NoQueue, queue.NoQueue}, {ioc.Expedite, queue.Expedite}, {ioc.QueCvt, queue.QueCvt}, {ioc.HeadQue, queue.HeadQue},
	{ioc.AltPR, queue.AltPR}, {ioc.AltCW, queue.AltCW}, {ioc.NoBAST, queue.NoBAST},
	{ioc.NoDlckWt, queue.NoDlckWt}, {ioc.NoDlckBlk, queue.NoDlckBlk},
}

func queueFlags(from ioc.Flags) (to queue.Flags) {
	for _, f := range ioctlFlags {
		if from&f.from != 0 {
			to |= f.to
		}
	}
	return to
}

func iocFlags(from queue.Flags) (to ioc.Flags) {
	for _, f := range ioctlFlags {
		if from&f.to != 0 {
			to |= f.from
		}
	}
	return to
}

func (h *handle) ioctlRequest(c *lockd.Call, payload, reply []byte) syscall.Errno {
	r, err := ioc.DecodeRequest(payload)
	if err != nil || r.Mode == 0 {
		return syscall.EINVAL
	}
	if errno := h.turn.take(c, r.Flags&ioc.NoQueue != 0); errno != 0 {
		return errno
	}
	defer h.turn.leave()
	err = h.request(c, lockd.Request{Mode: queue.Mode(r.Mode), Flags: queueFlags(r.Flags), Wait: r.Wait, TTL: r.TTL}, r.Flags&ioc.Async != 0)
	if err != nil {
		return errno(err, forLock)
	}
	h.answerRequest(r, reply)
	return 0
}

func (h *handle) ioctlConvert(c *lockd.Call, payload, reply []byte) syscall.Errno {
	r, err := ioc.DecodeRequest(payload)
	if err != nil || r.Mode == 0 || r.Flags&ioc.Async != 0 || r.TTL != 0 {
		return syscall.EINVAL
	}
	if errno := h.turn.take(c, r.Flags&ioc.NoQueue != 0); errno != 0 {
		return errno
	}
	defer h.turn.leave()
	err = h.convert(c, lockd.Request{Mode: queue.Mode(r.Mode), Flags: queueFlags(r.Flags), Wait: r.Wait})
	var failed commitFailure
	if errors.As(err, &failed) {
		return failed.errno
	}
	if err != nil {
		return errno(err, forLock)
	}
	h.setNamed(true)
	h.answerRequest(r, reply)
	return 0
}

// answerRequest tells what was granted.
func (h *handle) answerRequest(r ioc.Request, reply []byte) {
	r.Mode, r.Token = uint32(h.lock.Mode()), h.lock.Token()
	if n := h.value(); n != nil {
		r.Generation, r.Valid = n.Generation, !n.Invalid
	}
	r.Encode(reply)
}

func (h *handle) ioctlToken(_ *lockd.Call, payload, reply []byte) syscall.Errno {
	if _, err := ioc.DecodeToken(payload); err != nil {
		return syscall.EINVAL
	}
	s, errno := h.sequencerOf()
	if errno != 0 {
		return errno
	}
	ioc.Token{Token: s.token, Mode: uint32(s.mode)}.Encode(reply)
	return 0
}

func (h *handle) ioctlSequencer(_ *lockd.Call, payload, reply []byte) syscall.Errno {
	if _, err := ioc.DecodeCheck(payload); err != nil {
		return syscall.EINVAL
	}
	s, errno := h.sequencerOf()
	if errno != 0 {
		return errno
	}
	text := s.String()
	if len(text) > ioc.MaxSequencer {
		return syscall.ENAMETOOLONG
	}
	ioc.Check{Token: s.token, Text: text}.Encode(reply)
	return 0
}

// ioctlCheck says whether a sequencer stands; any descriptor of the mount can ask.
func (f *FS) ioctlCheck(c *lockd.Call, payload, reply []byte) syscall.Errno {
	q, err := ioc.DecodeCheck(payload)
	if err != nil {
		return syscall.EINVAL
	}
	s, ok := parseSequencer(q.Text)
	if !ok {
		return syscall.EINVAL
	}
	stands, newest, err := f.stands(c, s)
	if err != nil {
		return errno(err, forTree)
	}
	q.Verdict, q.Token = ioc.Passed, newest
	if stands {
		q.Verdict = ioc.Stands
	}
	q.Encode(reply)
	return 0
}

// noticeKinds are the notices' numbers in package ioc.
var noticeKinds = map[lockd.NoticeKind]ioc.Kind{
	lockd.NoticeGranted: ioc.Granted, lockd.NoticeBlocking: ioc.Blocking, lockd.NoticeConverted: ioc.Converted,
	lockd.NoticeReleased: ioc.Released, lockd.NoticeDeadlock: ioc.Deadlock, lockd.NoticeLost: ioc.Lost,
	lockd.NoticeValue: ioc.ValueChanged, lockd.NoticeInvalid: ioc.Invalid, lockd.NoticeCreated: ioc.Created,
	lockd.NoticeRemoved: ioc.Removed, lockd.NoticeRenamed: ioc.Renamed, lockd.NoticeJeopardy: ioc.Jeopardy,
	lockd.NoticeSafe: ioc.Safe, lockd.NoticeLeader: ioc.Leader, lockd.NoticeHostJoined: ioc.HostJoined,
	lockd.NoticeHostLeft: ioc.HostLeft, lockd.NoticeOverflow: ioc.Overflow,
}

func (h *handle) ioctlNotice(_ *lockd.Call, payload, reply []byte) syscall.Errno {
	if _, err := ioc.DecodeNotice(payload); err != nil {
		return syscall.EINVAL
	}
	n, lost, left, ok := h.takeNotice()
	if !ok {
		return syscall.EAGAIN
	}
	a := ioc.Notice{
		Kind: noticeKinds[n.Kind], Mode: uint32(n.Mode), Wanted: uint32(n.Wanted), Token: n.Token, Time: n.Time.UnixNano(),
		Lost: uint32(min(lost, math.MaxUint32)), Left: uint32(left), Line: n.String(),
	}
	if n.Kind == lockd.NoticeBlocking && n.By.Host == h.fs.host.Name() {
		a.PID = n.By.PID
	}
	a.Encode(reply)
	return 0
}

// ioctlValueGet reads a piece of what the descriptor itself would read.
func (h *handle) ioctlValueGet(c *lockd.Call, payload, reply []byte) syscall.Errno {
	v, err := ioc.DecodeValue(payload)
	if err != nil {
		return syscall.EINVAL
	}
	if errno := h.waitForValue(c); errno != 0 {
		return errno
	}
	if errno := h.mayReadValue(0); errno != 0 {
		return errno
	}
	n := h.value()
	if n == nil {
		return syscall.ESTALE
	}
	value := h.fs.policy.show(n.Value, n.Invalid)
	h.mu.Lock()
	if own, has := h.work.visible(); has {
		value = append([]byte(nil), own...)
	}
	h.mu.Unlock()
	v.Generation, v.Size, v.Valid = n.Generation, uint32(len(value)), !n.Invalid
	v.Data = value[min(v.Offset, uint64(len(value))):]
	v.Data = v.Data[:min(len(v.Data), ioc.MaxPiece)]
	v.Encode(reply)
	return 0
}

// waitForValue waits for the last commit of whoever closed the file just now.
func (h *handle) waitForValue(c *lockd.Call) syscall.Errno {
	over := h.fs.shared.of(h.ino)
	if over == nil {
		return 0
	}
	if c.Park != nil {
		c.Park()
	}
	select {
	case <-over:
		return 0
	case <-c.Cancel:
		return syscall.EINTR
	}
}

// ioctlValueSet takes a piece of a new value, and commits it when it is whole.
func (h *handle) ioctlValueSet(c *lockd.Call, payload, reply []byte) syscall.Errno {
	v, err := ioc.DecodeValue(payload)
	if err != nil {
		return syscall.EINVAL
	}
	if errno := h.mayWriteValue(0); errno != 0 {
		return errno
	}
	limit := h.limit()
	if int64(v.Size) > int64(limit.size) {
		return limit.errno
	}
	h.mu.Lock()
	w := h.working()
	if v.Offset == 0 {
		w.setting = nil
	}
	if v.Offset != uint64(len(w.setting)) || len(v.Data) == 0 && v.Size != 0 {
		h.mu.Unlock()
		return syscall.EINVAL
	}
	w.setting = append(w.setting, v.Data...)
	if len(w.setting) < int(v.Size) {
		h.mu.Unlock()
		v.Data = nil
		v.Encode(reply)
		return 0
	}
	value := w.setting
	w.setting = nil
	h.mu.Unlock()
	c.From = nil // of an ioctl(2) the kernel raises no inotify event
	if errno := h.replace(c, value); errno != 0 {
		return errno
	}
	v.Data = nil
	if n := h.value(); n != nil {
		v.Generation, v.Valid = n.Generation, !n.Invalid
	}
	v.Encode(reply)
	return 0
}

func (h *handle) ioctlInfo(_ *lockd.Call, payload, reply []byte) syscall.Errno {
	if _, err := ioc.DecodeInfo(payload); err != nil {
		return syscall.EINVAL
	}
	n := h.value()
	if n == nil {
		return syscall.ESTALE
	}
	a := ioc.Info{Ino: h.ino, Generation: n.Generation, Valid: !n.Invalid, View: h.fs.policy.ioc, Path: h.fs.host.View().Path(h.ino)}
	if len(a.Path) > ioc.MaxPath {
		return syscall.ENAMETOOLONG
	}
	h.nmu.Lock()
	if h.notices != nil {
		a.Notices = uint32(len(h.notices.ring))
	}
	h.nmu.Unlock()
	if l, ok := h.fs.host.Info(&h.lock); ok {
		a.Mode, a.Wanted, a.Token, a.Since, a.Flags = uint32(l.Mode), uint32(l.Wanted), l.Token, l.Since.UnixNano(), iocFlags(l.Flags)
		switch {
		case l.Wanted == queue.None:
			a.State = ioc.Held
		case l.Mode == queue.None:
			a.State = ioc.Waiting
		default:
			a.State = ioc.Converting
		}
	}
	if h.lost(0) {
		a.State = ioc.LostLock
	}
	a.Encode(reply)
	return 0
}

// replace commits a whole new value and drops what was written before.
func (h *handle) replace(c *lockd.Call, value []byte) syscall.Errno {
	if h.fs.policy.through && !h.isNamed() {
		return errno(h.commitThrough(c, 0, &statepb.Commit{Change: &statepb.Commit_Whole{Whole: value}}), forTree)
	}
	h.mu.Lock()
	for {
		committing := h.work.commits()
		if committing == nil {
			break
		}
		h.mu.Unlock()
		if c.Park != nil {
			c.Park()
		}
		<-committing // ends within the time for operations
		h.mu.Lock()
	}
	n := h.value()
	if n == nil {
		h.mu.Unlock()
		return syscall.ESTALE
	}
	h.working().batch.replace(value, n.Generation)
	h.mu.Unlock()
	return h.commit(c)
}
