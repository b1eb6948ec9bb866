package dockerfile

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

func (s *stage) mount(m *instructions.Mount, n int, r *running) error {
	target := m.Target
	if m.Type == instructions.MountTypeSecret {
		return s.mountSecret(m, n, r)
	}
	if err := checkMount(m); err != nil {
		return err
	}
	if !path.IsAbs(target) {
		target = path.Join("/", s.config.Config.WorkingDir, target)
	}
	if target = path.Clean(target); target == "/" {
		return errors.New("the target is the root")
	}
	l := Mount{Path: target, ReadOnly: m.ReadOnly}
	r.keys = append(r.keys, m.Type, target, m.ReadOnly)
	switch m.Type {
	case instructions.MountTypeTmpfs:
		l.Size = m.SizeLimit
		r.mounts = append(r.mounts, l)
		r.keys = append(r.keys, m.SizeLimit)
	case instructions.MountTypeCache:
		id := m.CacheID
		if id == "" {
			id = target
		}
		if m.Mode != nil {
			l.Mode = uint32(*m.Mode)
		}
		if m.UID != nil {
			l.UID = uint32(*m.UID)
		}
		if m.GID != nil {
			l.GID = uint32(*m.GID)
		}
		r.diskOf[len(r.mounts)] = len(r.disks)
		r.disks = append(r.disks, s.arch+" "+id)
		r.mounts = append(r.mounts, l)
		r.keys = append(r.keys, id)
	case instructions.MountTypeBind:
		return s.mountBind(m, n, l, r)
	default:
		return fmt.Errorf("type=%s: Lumina does not know it", m.Type)
	}
	return nil
}

// checkMount says what is wrong with a mount, whatever values its variables get.
func checkMount(m *instructions.Mount) error {
	switch {
	case m.Type == instructions.MountTypeSecret:
		return nil // it may be a variable only
	case m.Target == "":
		return errors.New("a target is missing")
	case path.Clean(m.Target) == "/":
		return errors.New("the target is the root")
	case m.Type == instructions.MountTypeCache && (m.From != "" || m.Source != ""):
		return errors.New("a cache begins empty: from and source are for type=bind")
	}
	return nil
}

// mountBind shows a part of the context, a stage or an image. What the command
// writes there is dropped.
func (s *stage) mountBind(m *instructions.Mount, n int, l Mount, r *running) error {
	tree := s.b.o.Context
	if m.From != "" {
		src, err := s.from(m.From)
		if err != nil {
			return err
		}
		if tree, err = src.tree(s.b.ctx); err != nil {
			return err
		}
	}
	if tree == nil {
		return errNoContext
	}
	cp := &copying{dest: "/data", sources: []copySource{{tree: tree, pattern: m.Source, literal: true}}}
	if err := cp.pick(s.b.ctx); err != nil {
		return err
	}
	digest, err := cp.digest()
	if err != nil {
		return err
	}
	r.keys = append(r.keys, digest)
	name := "bind-" + digest
	if !l.ReadOnly {
		name = fmt.Sprintf("bind-%d-%d", s.step, n) // what is written stays in this mount
	}
	r.add(name, false, l, func(w io.Writer) error {
		same := func(mode uint32) uint32 { return mode }
		entries, err := cp.place(view{added: map[string]*entry{}}, nil, same)
		if err != nil {
			return err
		}
		return writeLayer(s.b.ctx, entries, nil, same, w)
	})
	return nil
}

// mountTitle names a mount in a message: a secret may have no target.
func mountTitle(m *instructions.Mount) string {
	if m.Target == "" {
		return "--mount=type=" + string(m.Type)
	}
	return "--mount at " + m.Target
}

// secretID is what a mount calls its secret.
func secretID(m *instructions.Mount) string {
	switch {
	case m.CacheID != "":
		return m.CacheID
	case m.Source != "":
		return m.Source
	}
	return path.Base(m.Target)
}

// missesSecret says that a secret is required that was not given.
func (s *stage) missesSecret(m *instructions.Mount) error {
	id := secretID(m)
	if _, ok := s.b.o.Secrets[id]; ok || !m.Required {
		return nil
	}
	return fmt.Errorf("secret %q is required; give it with --secret id=%s,src=FILE", id, id)
}

// missesSecrets says it of a RUN that has not begun, whose variables have no value yet.
func (s *stage) missesSecrets(c *instructions.RunCommand) error {
	for _, m := range instructions.GetMounts(c) {
		if m.Type != instructions.MountTypeSecret || strings.Contains(secretID(m), "$") {
			continue
		}
		if err := s.missesSecret(m); err != nil {
			return fmt.Errorf("%s: %w", mountTitle(m), err)
		}
	}
	return nil
}

// mountSecret gives a secret as a file, as a variable, or both. It is no part of
// what the result depends on.
func (s *stage) mountSecret(m *instructions.Mount, n int, r *running) error {
	id := secretID(m)
	secret, ok := s.b.o.Secrets[id]
	r.keys = append(r.keys, "secret", id, m.Target, m.Env)
	if !ok {
		return s.missesSecret(m)
	}
	target := m.Target
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		r.env = append(r.env, name+"="+string(secret))
		if target == "" {
			return nil
		}
	}
	if target == "" {
		target = "/run/secrets/" + id
	}
	if !path.IsAbs(target) {
		target = path.Join("/", s.config.Config.WorkingDir, target)
	}
	mode, uid, gid := int64(0o400), 0, 0
	if m.Mode != nil {
		mode = int64(*m.Mode & 0o7777)
	}
	if m.UID != nil {
		uid = int(*m.UID)
	}
	if m.GID != nil {
		gid = int(*m.GID)
	}
	r.add(fmt.Sprintf("secret-%d-%d", s.step, n), true, Mount{Path: path.Clean(target), ReadOnly: true}, func(w io.Writer) error {
		return writeOne(w, secret, mode, uid, gid)
	})
	return nil
}
