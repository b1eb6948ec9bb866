package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newGroup is a command that holds others and does nothing by itself: without one
// of them it prints its help, as docker's do.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:                   use,
		Short:                 short,
		DisableFlagsInUseLine: true,
		Args:                  noVerb,
		RunE:                  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// noVerb are the arguments of a group: there are none, since cobra takes those that
// are one of its commands.
func noVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownVerb(c, args[0])
}

func unknownVerb(c *cobra.Command, verb string) error {
	hint := ""
	if like := similar(c, verb); len(like) > 0 {
		hint = " (did you mean " + strings.Join(like, " or ") + "?)"
	}
	for _, docker := range dockerVerbs() {
		if path := strings.TrimSpace(strings.TrimPrefix(c.CommandPath(), c.Root().Name()) + " " + verb); slices.Contains(strings.Split(docker.flags, ", "), path) {
			hint = " (it is lumina " + docker.instead + ")"
		}
	}
	return usageError{fmt.Errorf("unknown command %q for %q%s; see %s --help", verb, c.CommandPath(), hint, c.CommandPath())}
}

// similar are the commands of c that are called much as verb is.
func similar(c *cobra.Command, verb string) []string {
	all := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, sub := range c.Commands() {
		for _, name := range append([]string{sub.Name()}, sub.Aliases...) {
			all.AddCommand(&cobra.Command{Use: name, SuggestFor: sub.SuggestFor, Hidden: sub.Hidden, Run: func(*cobra.Command, []string) {}})
		}
	}
	return all.SuggestionsFor(verb)
}

// flagError is what is wrong with a command line's flags; of a command that does
// not exist they do not matter.
func flagError(c *cobra.Command, err error) error {
	if before := c.Flags().Args(); c.HasSubCommands() && len(before) > 0 {
		return unknownVerb(c, before[0])
	}
	if c.Flags().Lookup("hostname") != nil && strings.HasPrefix(err.Error(), "flag needs an argument: 'h' in ") {
		return pflag.ErrHelp // -h alone, as everywhere
	}
	// The flag package's words for what is not a number are Go's.
	text, _, number := strings.Cut(err.Error(), ": strconv.Parse")
	switch {
	case number && strings.Contains(err.Error(), "value out of range"):
		err = errors.New(text + ": the number is too large or too small")
	case number && strings.Contains(err.Error(), "ParseBool"):
		err = errors.New(text + ": want true or false")
	case number:
		err = errors.New(text + ": want a whole number")
	}
	return usageError{fmt.Errorf("%w%s; see %s --help", err, dockerHint(c, err), c.CommandPath())}
}

// dockerHint is what to write in place of a flag of docker's that is none here.
func dockerHint(c *cobra.Command, err error) string {
	text := err.Error()
	if (c.Name() == "run" || c.Name() == "exec") && strings.HasPrefix(text, "unknown ") && len(c.Flags().Args()) > commandAt(c) {
		return "; write a command with its own flags as one string, or as PROG ARG… after --"
	}
	name := ""
	if rest, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		name, _, _ = strings.Cut(rest, "=")
	} else if rest, ok := strings.CutPrefix(text, "unknown shorthand flag: '"); ok {
		name, _, _ = strings.Cut(rest, "'")
	}
	for _, hint := range otherHints() {
		if c.CommandPath() == c.Root().Name()+" "+hint.command && slices.Contains(strings.Fields(hint.flags), name) {
			return " (" + hint.instead + ")"
		}
	}
	switch c.Name() {
	case "run", "start", "exec":
	default:
		return ""
	}
	if name == "d" || name == "detach" {
		if c.Name() == "start" {
			return " (it is always so; --run runs the image's command)"
		}
		return " (lumina session start keeps a VM, and --run runs the image's command in it)"
	}
	for _, hint := range dockerHints() {
		if slices.Contains(strings.Fields(hint.flags), name) {
			return " (" + hint.instead + ")"
		}
	}
	return ""
}

// dockerVerbs are commands of docker's that have other names here.
func dockerVerbs() []hint {
	return []hint{
		{"start, create, container", "session start"},
		{"stop, rm, session kill, session delete", "session stop SID"},
		{"delete", "session stop SID, images remove NAME, volume remove NAME or desktop remove NAME"},
		{"get, list", "session list, and lumina images list"},
		{"describe, inspect, session inspect, session describe", "ps SID, images inspect NAME or volume inspect NAME"},
		{"apply", "network run FILE"},
		{"port-forward, tunnel", "session forward SID HOST:GUEST"},
		{"scp, rsync, sftp, copy, put, session copy", "cp SRC… DST, where one side is SID:PATH"},
		{"stats", "ps, and lumina exec SID top"},
		{"wait", "logs -f SID ID, which ends with the command"},
		{"diff", "exec SID CMD: a VM's root is one, of which nobody else has the changes"},
		{"restart, pause, unpause, session restart, session pause", "session stop SID and lumina session start: a session runs until it is stopped"},
		{"rename, session rename, session tag", "session start --name NAME: a session keeps its name"},
		{"search", "images create NAME --from REF: registries are not searched"},
		{"container ls, network ls, network list", "session list"},
		{"ls", "session list, and lumina images list"},
		{"ssh, shell, sh, bash, enter, session exec, session shell", "exec -it SID CMD"},
		{"login, logout", "exec -it SID CMD; for registries the logins of docker login and skopeo login count"},
		{"up, launch, spawn", "session start"},
		{"down", "session stop SID"},
		{"session cp", "cp"},
		{"network rm, network remove", "session stop SID"},
		{"attach", "exec -it SID CMD, or lumina logs -f SID ID"},
		{"top, session ps", "ps SID"},
		{"session logs", "logs SID ID"},
		{"port", "session forward SID"},
		{"rmi", "images remove NAME"},
		{"image", "images"},
		{"build, buildx, images build", "images create NAME --file Dockerfile CONTEXT"},
		{"history, images history", "images inspect NAME"},
		{"commit, session commit", "images create NAME --from IMAGE --run CMD, which keeps what CMD changes"},
		{"push", "images push NAME REF"},
		{"save, export", "images save NAME DESTINATION"},
		{"load, import", "images load NAME SOURCE"},
		{"tag, images tag", "images create NEW --from NAME"},
		{"system", "images df, images prune and clean"},
		{"volume prune", "volume remove NAME…"},
		{"compose", "network run FILE"},
		{"vm, vms, machine", "session, which keeps a VM, or lumina run, which runs one command in one"},
		{"status", "ps"},
		{"info", "doctor"},
	}
}

type hint struct{ flags, instead string }

// otherHints are flags of other commands of docker's, and of kill's, as dockerHints are.
func otherHints() []struct{ command, flags, instead string } {
	return []struct{ command, flags, instead string }{
		{"images create", "t tag f", "write lumina images create NAME --file Dockerfile CONTEXT"},
		{"images save", "o output", "write lumina images save NAME docker-archive:FILE"},
		{"images load", "i input", "write lumina images load NAME docker-archive:FILE"},
		{"kill", "0 1 2 3 4 5 6 7 8 9 K T H I Q", "write lumina kill --signal SIGNAL SID ID"},
		{"ps", "format", "write --json"},
		{"ps", "no-trunc", "nothing is cut"},
		{"session list", "format", "write --json"},
		{"images", "format", "write --json"},
		{"images list", "format", "write --json"},
		{"images inspect", "format f", "it is JSON: lumina images inspect NAME | jq .FIELD"},
		{"volume list", "format", "write --json"},
		{"logs", "n tail since until t timestamps details", "LUMINA_FORMAT=text lumina logs SID ID | tail -n LINES"},
		{"session stop", "t time timeout s signal", "it kills what runs and writes what volumes have to the disk; --force kills the VM at once"},
		{"session stop", "a all", "write lumina session stop $(lumina ps -q)"},
		{"cp", "exclude include filter exclude-from from0 C cvs-exclude", "everything is copied; to leave something out: tar -c --exclude=NAME . | lumina exec SID 'tar -x -C DST'"},
		{"cp", "v verbose i itemize-changes progress stats", "a terminal sees the progress; a pipe gets how much was copied"},
		{"cp", "q quiet", "progress goes to the standard error: 2>/dev/null"},
		{"cp", "P no-dereference d l links", "links below SRC are copied as links, and SRC itself is followed"},
		{"cp", "t times", "files always keep their times"},
		{"cp", "z compress", "nothing is sent over a network"},
		{"cp", "u update n no-clobber dry-run ignore-existing delete", "a copy replaces files that are there, and removes none"},
	}
}

// dockerHints are flags of docker run, create and exec that are none here, with what
// to do instead.
func dockerHints() []hint {
	return []hint{
		{"add-host", "write to /etc/hosts in the VM; lumina network run starts VMs that find each other by name"},
		{"annotation label-file", "labels are a session's: lumina session start --label"},
		{"label l", "labels are a session's: lumina session start --label KEY=VALUE"},
		{"attach a sig-proxy detach-keys", "output and signals always pass; -i passes the input"},
		{"cap-add privileged security-opt", "a VM's root may do everything in it"},
		{"cap-drop userns", "what is in the VM has no rights outside; --user picks another user in it"},
		{"cidfile", "lumina session start prints the SID"},
		{"cpu-shares c cpuset-cpus cpuset-mems cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-count cpu-percent", "--cpus N gives the VM N CPUs"},
		{"device device-cgroup-rule blkio-weight device-read-bps device-write-bps", "a VM has devices of its own, and none of this host's"},
		{"gpus runtime", "a VM has none of this host's GPUs"},
		{"dns dns-search dns-option dns-opt", "names are asked of this host's own resolver; --network chooses what may be reached"},
		{"domainname", "write --hostname NAME.DOMAIN"},
		{"env-from", "write --env-file"},
		{"expose publish-all P", "-p HOST:GUEST forwards a port"},
		{"group-add", "write --user USER:GROUP, or add the user to the group in the image"},
		{"health-cmd health-interval health-retries health-timeout health-start-period no-healthcheck", "nothing checks the health of a command; lumina exec does"},
		{"ip ip6 link link-local-ip mac-address net-alias network-alias", "lumina network run starts VMs that find each other by name"},
		{"ipc pid uts cgroupns cgroup-parent isolation", "a VM has a kernel of its own and shares none of these with this host"},
		{"log-driver log-opt", "the output is this command's; of a session, lumina logs has it"},
		{"memory-swap memory-reservation memory-swappiness kernel-memory oom-kill-disable oom-score-adj", "--memory is what the VM has"},
		{"mount volume-driver", "write --volume"},
		{"volumes-from", "name the volume with --volume"},
		{"net", "write --network"},
		{"pids-limit ulimit sysctl", "set it in the command: ulimit, sysctl -w"},
		{"platform", "lumina images create NAME --from REF --platform OS/ARCH makes an image of it"},
		{"quiet q", "progress goes to the standard error: 2>/dev/null"},
		{"read-only", "the image is never written to: a VM's changes end with it"},
		{"restart", "nothing starts a VM again; what starts this command can"},
		{"shm-size tmpfs", "mount it in the command: mount -t tmpfs"},
		{"stop-signal stop-timeout", "signals reach the command; the second one ends it, and lumina kill has --signal"},
		{"storage-opt", "write --disk-size"},
	}
}

// commandAt is where among the arguments the command of a VM begins.
func commandAt(c *cobra.Command) int {
	if c.Name() == "exec" {
		return 1
	}
	return 0
}

// newHelpCommand is cobra's help, for which a command that does not exist is bad
// usage.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Print the help of a command",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 && found.HasSubCommands() {
				return unknownVerb(found, append(rest, args...)[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// initCompletion adds cobra's command that makes scripts for shells, for which a
// shell that it does not know is bad usage, too.
func initCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	if c, _, err := root.Find([]string{"completion"}); err == nil && c != root {
		c.Args, c.RunE = noVerb, func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

// dockerNames are docker's long names of flags that have others here.
func dockerNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "publish":
		name = "forward"
	case "tty":
		name = "pty"
	}
	return pflag.NormalizedName(name)
}
