package state

import "bytes"

// Since returns the changes of the tree that lead from an older view of the same cluster to this one, as applying the
// entries between them would have told it, but for what came and went in between: first what was removed, then what was
// moved, made and changed. By whom is not known: Session is 0. It takes as long as both trees are large.
func (v *View) Since(old *View) []Change {
	var d difference
	before, after := old.nodes.Iter(), v.nodes.Iter()
	was, is := before.First(), after.First()
	for was || is {
		switch {
		case !is || was && before.Key() < after.Key():
			d.removed(before.Value(), false)
			was = before.Next()
		case !was || after.Key() < before.Key():
			d.made(after.Value())
			is = after.Next()
		default:
			if a, b := before.Value(), after.Value(); a != b {
				d.changed(a, b)
			}
			was, is = before.Next(), after.Next()
		}
	}
	changes := append(append(d.gone, d.moves...), d.rest...)
	for i := range changes {
		changes[i].Index = v.index
	}
	return changes
}

// difference gathers changes in the order in which they are told.
type difference struct{ gone, moves, rest []Change }

func (d *difference) removed(n *Node, orphan bool) {
	d.gone = append(d.gone, Change{Kind: Removed, Parent: n.Parent, Name: n.Name, Ino: n.Ino, Dir: n.Dir, Orphan: orphan})
}

// made tells of a new node; one that was unlinked already was never seen by anybody else.
func (d *difference) made(n *Node) {
	if n.Orphan == 0 {
		d.rest = append(d.rest, Change{Kind: Made, Parent: n.Parent, Name: n.Name, Ino: n.Ino, Dir: n.Dir})
	}
}

func (d *difference) changed(a, b *Node) {
	switch {
	case a.Orphan == 0 && b.Orphan != 0:
		d.removed(a, true)
	case a.Parent != b.Parent || a.Name != b.Name:
		d.moves = append(d.moves, Change{
			Kind: Moved, Ino: b.Ino, Dir: b.Dir, Parent: a.Parent, Name: a.Name, NewParent: b.Parent, NewName: b.Name,
		})
	}
	if a.Perm != b.Perm || a.UID != b.UID || a.GID != b.GID || a.Atime != b.Atime || a.Mtime != b.Mtime || a.Ctime != b.Ctime {
		d.rest = append(d.rest, Change{Kind: Attr, Ino: b.Ino})
	}
	d.xattrs(a, b)
	committed := a.Generation != b.Generation
	if committed {
		d.rest = append(d.rest, Change{Kind: Value, Ino: b.Ino, Generation: b.Generation})
	}
	if b.Invalid && (committed || !a.Invalid) {
		d.rest = append(d.rest, Change{Kind: Invalidated, Ino: b.Ino})
	}
}

// xattrs tells of each extended attribute that was set, changed or removed. Both lists are by name.
func (d *difference) xattrs(a, b *Node) {
	i, k := 0, 0
	for i < len(a.Xattrs) || k < len(b.Xattrs) {
		var name string
		switch {
		case k == len(b.Xattrs) || i < len(a.Xattrs) && a.Xattrs[i].Name < b.Xattrs[k].Name:
			name = a.Xattrs[i].Name
			i++
		case i == len(a.Xattrs) || b.Xattrs[k].Name < a.Xattrs[i].Name:
			name = b.Xattrs[k].Name
			k++
		default:
			if !bytes.Equal(a.Xattrs[i].Value, b.Xattrs[k].Value) {
				name = b.Xattrs[k].Name
			}
			i++
			k++
		}
		if name != "" {
			d.rest = append(d.rest, Change{Kind: Xattr, Ino: b.Ino, Name: name})
		}
	}
}
