package main

import (
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/abdul-abdi/lumina/runtime"
	"github.com/abdul-abdi/lumina/runtime/image"
)

func newImagesCommand(env *environment) *cobra.Command {
	list := newImagesListCommand(env)
	c := newGroup("images", "Make, list and remove images", newImagesCreateCommand(env), newImagesPullCommand(env), newImagesPushCommand(env), newImagesCopyCommand(env), newImagesExportCommand(env), list, newCatalogCommand(env), newImagesDFCommand(env), newImagesSaveCommand(env), newImagesLoadCommand(env), newImagesPruneCommand(env),
		newInspectCommand(env, "Print everything known about an image, as JSON", imageStore, describeImage),
		newRemoveCommand(env, "Remove images that nothing uses", imagesByReference))
	c.Long = "Make, list and remove images. Without a command, list them."
	c.RunE = list.RunE
	c.Flags().AddFlagSet(list.Flags())
	return c
}

// imageRow is an image as list prints it.
type imageRow struct {
	Name         string    `json:"name"`
	Architecture string    `json:"architecture,omitempty"`
	Created      time.Time `json:"created,omitzero"`
	Source       string    `json:"source,omitempty"`
	SizeBytes    int64     `json:"size_bytes,omitempty"`
	Error        string    `json:"error,omitempty"`
}

func rowOf(name string, img *image.Image) imageRow {
	row := imageRow{Name: name, Architecture: img.Architecture, Created: img.Created, Source: img.Source.Reference}
	for _, f := range img.Files {
		row.SizeBytes += f.Size
	}
	return row
}

func printImage(env *environment, name string, img *image.Image) error {
	f, err := outputFormat(env)
	if err != nil {
		return err
	}
	row := rowOf(name, img)
	if f == formatText {
		return printLine(env.stdout, "%s: %s, %s", name, row.Architecture, formatSize(row.SizeBytes))
	}
	return printJSON(env.stdout, row)
}

func newImagesListCommand(env *environment) *cobra.Command {
	var quiet bool
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List images",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			f, err := outputFormat(env)
			if err != nil {
				return err
			}
			store, err := imageStore(env)
			if err != nil {
				return err
			}
			names, err := store.List()
			if err != nil {
				return err
			}
			if quiet {
				return printNames(env, names)
			}
			rows := []imageRow{}
			for _, name := range names {
				h, err := store.Open(name)
				if err != nil {
					rows = append(rows, imageRow{Name: name, Error: err.Error()})
					continue
				}
				rows = append(rows, rowOf(name, h.Image))
				h.Close()
			}
			if f != formatText {
				return printJSON(env.stdout, rows)
			}
			w := newTable(env.stdout, "NAME", "ARCH", "SIZE", "CREATED", "SOURCE")
			for _, r := range rows {
				if r.Error != "" {
					w.row(r.Name, "", "", "", r.Error)
					continue
				}
				w.row(r.Name, r.Architecture, formatSize(r.SizeBytes), r.Created.Local().Format(time.DateTime), r.Source)
			}
			return w.print()
		},
	}
	registerQuiet(c, &quiet)
	c.Flags().BoolP("all", "a", true, "list all images: always on; accepted for compatibility")
	return c
}

func imageStore(env *environment) (*image.Store, error) {
	home, err := runtime.Home(env.getenv("LUMINA_HOME"))
	if err != nil {
		return nil, err
	}
	return image.NewStore(filepath.Join(home, "images")), nil
}

// referredImages are images that are also found by the reference that they are
// kept of.
type referredImages struct{ *image.Store }

func imagesByReference(env *environment) (referredImages, error) {
	store, err := imageStore(env)
	return referredImages{store}, err
}

func (s referredImages) Remove(name string) error {
	name, err := localName(s.Store, name)
	if err != nil {
		return err
	}
	return s.Store.Remove(name)
}

// describeImage is image.json with the image's name.
func describeImage(store *image.Store, name string) (any, error) {
	name, err := localName(store, name)
	if err != nil {
		return nil, err
	}
	h, err := store.Open(name)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return struct {
		Name string `json:"name"`
		*image.Image
	}{name, h.Image}, nil
}
