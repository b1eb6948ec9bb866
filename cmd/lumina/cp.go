package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/initramfs/protocol"
)

func newCpCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "cp SRC DST",
		Short: "Copy files between this host and a session's VM",
		Long:  "Copy a file or directory; the side that begins with SID: is the VM. It copies as cp -r does.",
		Example: `  lumina cp ./project 3f2c:/work
  lumina cp 3f2c:/work/out.tar .`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			fromID, from, fromGuest := splitRemote(args[0])
			toID, to, toGuest := splitRemote(args[1])
			if fromGuest == toGuest {
				return usageError{errors.New("one of SRC and DST is SID:PATH, the other a path of this host")}
			}
			s, err := openSession(env, fromID+toID)
			if err != nil {
				return err
			}
			report, err := newReport(env)
			if err != nil {
				return err
			}
			bars := newProgress(env)
			progress := func(p protocol.Copied) { bars.update(builder.Progress{Step: "copy", Done: p.Bytes}) }
			var copied protocol.Copied
			if toGuest {
				copied, err = s.CopyIn(c.Context(), from, to, progress)
			} else {
				copied, err = s.CopyOut(c.Context(), from, to, progress)
			}
			bars.close(err == nil)
			if err != nil {
				return report.fail(err)
			}
			for _, name := range copied.SkippedNames {
				env.note("%s is a socket, FIFO or device and was not copied", name)
			}
			if report.format == formatText {
				return nil
			}
			return printJSON(env.stdout, copied)
		},
	}
}

// splitRemote splits SID:PATH. A path of this host that has a colon is written
// with a slash before it.
func splitRemote(s string) (sid, path string, remote bool) {
	sid, path, found := strings.Cut(s, ":")
	if !found || sid == "" || strings.Contains(sid, string(os.PathSeparator)) || sid == "." {
		return "", s, false
	}
	return sid, path, true
}
