package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/outfile"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// copyRules are the help of everything that copies.
const copyRules = `It copies files and directories by the rules of cp -r and rsync:

  SRC/, SRC/. and SRC/.. mean the contents of that directory; SRC means the
  directory itself. A link given as SRC is followed; links below it are copied.
  If DST exists as a directory, or ends in /, the copy goes into it under its base
  name, and the contents of SRC/ go into it directly. Otherwise DST is the name of
  the copy. DST/ and missing parent directories are created.
  A directory is merged with an existing one. A file never replaces a directory,
  nor a directory a file: that is an error.
  Existing files keep their mode and owner; with -p they get the source's. Writing
  follows links (on this host only within DST); devices and FIFOs are written to;
  /dev/stdout is the output of this command.
  Files keep their times. New files get the source's mode (on this host less the
  umask) and belong to the image's user, on this host to the caller. On this host
  no file becomes setuid, setgid or a device.
  Hard links and holes are kept. Sockets, FIFOs and devices below a directory are
  left out with a note, and so are a mounted /proc and /sys. A file that cannot be
  read is left out; the other files are copied, then the copy ends with an error.
  A file gets its name only when it is complete. Relative paths in the guest start
  at the image's working directory.`

func newCpCommand(env *environment) *cobra.Command {
	var o runtime.CopyOptions
	var timeout timeSpan
	var most byteSize
	c := &cobra.Command{
		Use:   "cp SRC… DST",
		Short: "Copy files between this host and a session's VM",
		Long: `Copy files between this host and a session's VM: the side that begins with SID: is
in the VM. Write a local file name with a colon as ./a:b.

` + copyRules,
		Example: `  lumina cp ./project/ 3f2c:/work/
  lumina cp 3f2c:/work/out.tar .
  lumina cp 3f2c:/work/dist/ ./dist/`,
		Args: usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			call, err := parseCopy(args)
			if err != nil {
				return usageError{err}
			}
			limit, err := timeoutOf(env, timeout, c.Flags().Changed("timeout"))
			if err != nil {
				return err
			}
			o.MaxSize = int64(most)
			return call.run(c.Context(), env, o, limit)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().BoolVarP(&o.Preserve, "preserve", "p", false, "give what is there the source's mode, and files the source's owner")
	c.Flags().BoolVarP(&o.Preserve, "archive", "a", false, "the same as -p")
	for _, always := range []struct{ name, letter, usage string }{
		{"recursive", "r", "copy directories"},
		{"follow-link", "L", "follow a link that is SRC"},
	} {
		c.Flags().BoolP(always.name, always.letter, true, always.usage+": always on; accepted for compatibility")
	}
	// cp's other letter for -r.
	c.Flags().BoolP("Recursive", "R", true, "")
	c.Flags().Lookup("Recursive").Hidden = true
	c.Flags().Var(&most, "max-size", "end a copy to this host that writes more than this (default half of the free space)")
	c.Flags().Var(&timeout, "timeout", "end the copy after this time, such as 30 (seconds) or 1m30s; 0 for never (default $LUMINA_TIMEOUT or never)")
	return c
}

// copyCall is what a command line asks to copy.
type copyCall struct {
	sid     string
	sources []string
	to      string
	in      bool // into the VM
}

func parseCopy(args []string) (*copyCall, error) {
	call := &copyCall{}
	last := len(args) - 1
	var toGuest bool
	call.sid, call.to, toGuest = splitRemote(args[last])
	call.in = toGuest
	if slices.Contains(args, "") {
		return nil, errors.New("a path is empty")
	}
	for i, arg := range args {
		sid, path, remote := splitRemote(arg)
		switch {
		case arg == "-":
			return nil, errors.New(`"-" is not a file here: /dev/stdin and /dev/stdout are, and lumina exec SID -- tar -c PATH makes a tar archive`)
		case path == "" && remote:
			return nil, fmt.Errorf("%q names no path; %s:. is the image's working directory", arg, sid)
		case remote && hasTilde(path):
			return nil, errTilde(arg, sid+":", path)
		case i == last:
		case remote == toGuest:
			if remote {
				return nil, fmt.Errorf("%q and %q are both in sessions: DST is a path of this host then; a file of this host with a colon in its name is ./%s", arg, args[last], arg)
			}
			return nil, fmt.Errorf("%q and %q are both paths of this host: one side is SID:PATH", arg, args[last])
		case remote && i > 0 && sid != call.sid:
			return nil, errors.New("all SRC must be in the same session")
		default:
			if remote {
				call.sid = sid
			}
			call.sources = append(call.sources, path)
		}
	}
	if len(call.sources) > 1 && !strings.HasSuffix(call.to, "/") {
		call.to += "/" // several go into a directory
	}
	return call, nil
}

// hasTilde says whether a guest's path begins as a home directory does for a shell and
// for scp, which would become a directory of that name.
func hasTilde(path string) bool { return path == "~" || strings.HasPrefix(path, "~/") }

func errTilde(arg, before, path string) error {
	return fmt.Errorf("%q: ~ is not a home directory here: write its path, such as %s/root%s, or %s./%s for a file of that name", arg, before, path[1:], before, path)
}

func (call *copyCall) run(ctx context.Context, env *environment, o runtime.CopyOptions, timeout time.Duration) error {
	for _, source := range call.sources {
		if !call.in {
			break
		}
		if err := runtime.CheckCopyIn(source); err != nil {
			return usageError{err}
		}
	}
	if !call.in {
		if err := runtime.CheckCopyOut(call.to); err != nil {
			return usageError{err}
		}
	}
	s, err := openSession(env, call.sid)
	if err != nil {
		return err
	}
	report, err := newReport(env)
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, &runtime.Error{Kind: runtime.Timeout, Err: fmt.Errorf("the copy took longer than %v", timeout)})
		defer cancel()
	}
	env.raw = !call.in && outfile.IsOutput(env.stdout, call.to)
	bars := newProgress(env)
	copied, err := call.copy(ctx, s, o, bars)
	bars.close(err == nil)
	for _, name := range copied.SkippedNames {
		env.note("%s was not copied: it is a socket, FIFO or device, or a file system of the kernel such as /proc", name)
	}
	if err != nil {
		if ctx.Err() == nil && !env.raw {
			err = failedCopy(err)
		}
		return report.fail(err)
	}
	if call.in {
		// What the guest has taken may be lost on its way to the disk.
		if trouble := hostError(ctx, s); trouble != "" {
			env.note("%s", trouble)
		}
	}
	if report.format == formatText || env.raw {
		return nil
	}
	return printJSON(env.stdout, copied)
}

// failedCopy gives what failed on this host the kind that the guest's failures have.
func failedCopy(err error) error {
	var e *runtime.Error
	if errors.As(err, &e) {
		return err
	}
	return &runtime.Error{Kind: runtime.ConnectionFailed, Err: err}
}

// copy copies every source, and returns the sum.
func (call *copyCall) copy(ctx context.Context, s *session.Session, o runtime.CopyOptions, bars *progress) (sum runtime.Copied, err error) {
	done := int64(0)
	o.Progress = func(p runtime.Copied) { bars.update(builder.Progress{Step: "copy", Done: done + p.Bytes}) }
	copyOne := s.CopyOut
	if call.in {
		copyOne = s.CopyIn
	}
	told := map[string]bool{} // what is wrong with DST is so for every SRC
	for _, source := range call.sources {
		copied, copyErr := copyOne(ctx, source, call.to, o)
		sum.Files += copied.Files
		sum.Bytes += copied.Bytes
		sum.Skipped += copied.Skipped
		sum.SkippedNames = append(sum.SkippedNames, copied.SkippedNames...)
		sum.Failed += copied.Failed
		sum.FailedNames = append(sum.FailedNames, copied.FailedNames...)
		switch {
		case copyErr == nil:
		case ctx.Err() != nil:
			return sum, copyErr
		case told[copyErr.Error()]:
		case err == nil:
			err = copyErr // as cp does, the others are copied all the same
		default:
			err = fmt.Errorf("%w; %w", err, copyErr)
		}
		if copyErr != nil {
			told[copyErr.Error()] = true
		}
		done = sum.Bytes
		if o.MaxSize > 0 && !call.in {
			o.MaxSize = max(o.MaxSize-copied.Written, 1)
		}
	}
	return sum, err
}

// splitRemote splits SID:PATH, where SID is anything that names a session. A path of
// this host that has a colon is written with a slash before it.
func splitRemote(s string) (sid, path string, remote bool) { return session.SplitPath(s) }
