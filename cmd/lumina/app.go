package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/builder"
	"github.com/abdul-abdi/lumina/release"
	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/app"
	"github.com/abdul-abdi/lumina/runtime/desktop"
	"github.com/abdul-abdi/lumina/runtime/session"
)

// appLinger is how long the app goes on after its last page was closed.
const appLinger = time.Minute

func newAppCommand(env *environment) *cobra.Command {
	var noBrowser bool
	var port uint16
	c := &cobra.Command{
		Use:   "app",
		Short: "Show desktops, sessions and images in a browser on this host",
		Long: `Show desktops, sessions and images in a browser on this host: make and
use desktops, open terminals, pull images. It shows the same state as the command
line. It ends with Ctrl-C, with q on the page, or a minute after the last page was
closed; what it started keeps running.

The page is on 127.0.0.1. Anybody who knows its address can use it: keep it secret.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return serveApp(c.Context(), env, port, noBrowser, "") },
	}
	c.Flags().BoolVar(&noBrowser, "no-browser", false, "print the address instead of opening a browser")
	c.Flags().Uint16Var(&port, "port", 0, "port on 127.0.0.1, for example for ssh -L (default any free port)")
	return c
}

// serveApp serves the app; view is a part of it to open, as its page's address says it.
func serveApp(ctx context.Context, env *environment, port uint16, noBrowser bool, view string) error {
	o, err := appOptions(env)
	if err != nil {
		return err
	}
	o.Port = int(port)
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	return app.Serve(ctx, o, func(a app.Addresses) error {
		if !noBrowser && openBrowser(env, a.Once+view) {
			env.note("the app is open in your browser; Ctrl-C ends it; sessions and desktops keep running")
			return nil
		}
		if f == formatText {
			return printLine(env.stdout, "%s", a.Page+view)
		}
		return printJSON(env.stdout, map[string]string{"url": a.Page + view})
	})
}

func appOptions(env *environment) (app.Options, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return app.Options{}, err
	}
	o := app.Options{Home: home, Dirs: mediumDirs(), Linger: appLinger, Version: version,
		Pull: func(ctx context.Context, ref string, release bool, progress app.Progress) (string, error) {
			return pullFor(ctx, env, home, ref, release, progress)
		},
		Releases: func(ctx context.Context) ([]app.Release, error) { return releaseImages(ctx, env) },
		StartDesktop: func(ctx context.Context, o desktop.Options) (*desktop.Client, error) {
			program, err := os.Executable()
			if err != nil {
				return nil, fmt.Errorf("finding the lumina program: %w", err)
			}
			o.Window = goruntime.GOOS == "darwin" // nothing else shows its screen there
			return desktop.Start(ctx, program, []string{superviseDesktopCommand}, o)
		},
		StartSession: func(ctx context.Context, o session.Options) (*session.Session, error) {
			s, err := env.supervised(ctx, o)
			if err == nil {
				makeTemplateLater(env, o.VM, s.Info.Cold)
			}
			return s, err
		},
	}
	if caller, err := strconv.Atoi(env.getenv("SUDO_UID")); err == nil && os.Geteuid() == 0 {
		o.Caller = caller
	}
	o.Driver, o.NoDriver = env.desktopDriver()
	o.DiskReserve, err = diskReserve(env)
	return o, err
}

// mediumDirs are where people keep ISOs.
func mediumDirs() []string {
	var dirs []string
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, wd)
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, "Downloads"), home)
	}
	return dirs
}

// openBrowser opens an address in this user's browser; false where there is none.
func openBrowser(env *environment, address string) bool {
	opener := "xdg-open"
	if goruntime.GOOS == "darwin" {
		opener = "open"
	} else if env.getenv("DISPLAY") == "" && env.getenv("WAYLAND_DISPLAY") == "" {
		return false
	}
	cmd := exec.Command(opener, address)
	if cmd.Start() != nil {
		return false
	}
	go func() { _ = cmd.Wait() }()
	return true
}

// pullFor pulls an image for the app, and tells how far that is.
func pullFor(ctx context.Context, env *environment, home, ref string, fromRelease bool, progress app.Progress) (string, error) {
	own := *env
	own.progress = func(p builder.Progress) { progress(p.Step, p.Done, p.Total) }
	if fromRelease {
		flags := fromFlags{repo: defaultRepo}
		from, err := flags.from(&own)
		if err != nil {
			return "", err
		}
		pulled, err := pull(ctx, &own, from, home, release.PullOptions{ID: ref, Architecture: goruntime.GOARCH})
		return pulled.Name, err
	}
	err := obtainImage(ctx, &own, home, &ref, obtaining{policy: builder.PullAlways})
	return ref, err
}

// releaseImages are those of the latest release for this host.
func releaseImages(ctx context.Context, env *environment) ([]app.Release, error) {
	flags := fromFlags{repo: defaultRepo}
	from, err := flags.from(env)
	if err != nil {
		return nil, err
	}
	catalog, err := from.Catalog(ctx)
	if err != nil {
		return nil, err
	}
	all := []app.Release{}
	for _, img := range catalog.Images {
		if img.Architecture == goruntime.GOARCH {
			all = append(all, app.Release{ID: img.ID, Description: img.Description, Version: img.Version, Size: img.Size, Download: img.DownloadSize})
		}
	}
	return all, nil
}
