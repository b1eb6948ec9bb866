package builder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/abdul-abdi/lumina/runtime/image"
)

// maxContainer bounds the configuration of a container image that is kept, in
// bytes: image.json has a bound of its own.
const maxContainer = 2 << 20

// initLabel keeps an image's choice of PID 1 in a container image.
const initLabel = "org.lumina.init"

// describeContainer says in img what a container image says of itself: raw is
// its configuration, c the same.
func describeContainer(img *image.Image, raw []byte, c *v1.ConfigFile, annotations map[string]string) error {
	if len(raw) > maxContainer {
		return fmt.Errorf("its configuration has %d bytes, want at most %d", len(raw), maxContainer)
	}
	img.Config, img.Init = configOf(c)
	img.History = nil
	for _, h := range c.History {
		img.History = append(img.History, historyOf(h))
	}
	img.Container = &image.Container{Config: raw, Annotations: annotations}
	return nil
}

func historyOf(h v1.History) image.History {
	return image.History{Created: h.Created.Time, CreatedBy: h.CreatedBy, Comment: h.Comment, EmptyLayer: h.EmptyLayer}
}

// configOf is what running a command needs of a configuration.
func configOf(c *v1.ConfigFile) (config image.Config, init string) {
	config = image.Config{
		Env: c.Config.Env, User: c.Config.User, WorkingDir: c.Config.WorkingDir,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Labels: c.Config.Labels, StopSignal: c.Config.StopSignal,
	}
	if init = c.Config.Labels[initLabel]; image.CheckInit(init) != nil {
		init = ""
	}
	config.ExposedPorts = slices.Sorted(maps.Keys(c.Config.ExposedPorts))
	return config, init
}

// containerConfig is the configuration of an image as a container image: that of
// the one that it was made from, changed where the image is another. Its rootfs
// is for its layers to say.
func containerConfig(img *image.Image) ([]byte, error) {
	raw := []byte("{}")
	if img.Container != nil {
		raw = img.Container.Config
	}
	c, err := configFile(img)
	if err != nil {
		return nil, err
	}
	return overConfig(raw, c)
}

// configFile is containerConfig as far as its fields are known.
func configFile(img *image.Image) (*v1.ConfigFile, error) {
	c := &v1.ConfigFile{Architecture: img.Architecture, OS: "linux", Created: v1.Time{Time: img.Created}}
	from := 0 // layers
	if img.Container != nil {
		var err error
		if c, err = v1.ParseConfigFile(bytes.NewReader(img.Container.Config)); err != nil {
			return nil, fmt.Errorf("%w: its container's configuration: %w", image.ErrInvalid, err)
		}
		from = len(c.RootFS.DiffIDs)
	}
	changed := false
	take := func(differs bool, change func()) {
		if differs {
			changed = true
			change()
		}
	}
	was, init := configOf(c)
	now := img.Config
	take(!slices.Equal(was.Env, now.Env), func() { c.Config.Env = now.Env })
	take(was.User != now.User, func() { c.Config.User = now.User })
	take(was.WorkingDir != now.WorkingDir, func() { c.Config.WorkingDir = now.WorkingDir })
	take(!slices.Equal(was.Entrypoint, now.Entrypoint), func() { c.Config.Entrypoint = now.Entrypoint })
	take(!slices.Equal(was.Cmd, now.Cmd), func() { c.Config.Cmd = now.Cmd })
	take(was.StopSignal != now.StopSignal, func() { c.Config.StopSignal = now.StopSignal })
	take(!maps.Equal(was.Labels, now.Labels), func() { c.Config.Labels = maps.Clone(now.Labels) })
	take(!slices.Equal(was.ExposedPorts, now.ExposedPorts), func() {
		c.Config.ExposedPorts = map[string]struct{}{}
		for _, port := range now.ExposedPorts {
			c.Config.ExposedPorts[port] = struct{}{}
		}
	})
	take(init != img.Init, func() {
		labels := maps.Clone(c.Config.Labels)
		if delete(labels, initLabel); img.Init != "" {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[initLabel] = img.Init
		}
		c.Config.Labels = labels
	})
	take(addHistory(c, img.History, from), func() {})
	take(len(img.Layers) != from, func() {})
	if changed {
		c.Created = v1.Time{Time: img.Created}
	}
	return c, nil
}

// addHistory adds to a configuration what is new in an image's history; from is
// how many layers it has. It says whether anything was.
func addHistory(c *v1.ConfigFile, history []image.History, from int) bool {
	n := len(c.History)
	same := n <= len(history)
	for i := 0; i < n && same; i++ {
		was := historyOf(c.History[i])
		same = was.Created.Equal(history[i].Created) && was.CreatedBy == history[i].CreatedBy && was.Comment == history[i].Comment && was.EmptyLayer == history[i].EmptyLayer
	}
	if same && n == len(history) {
		return false
	}
	if !same {
		c.History, n, from = nil, 0, 0
	}
	// A history that does not go with its layers is made to, so that what is added
	// goes with the right ones.
	for _, h := range c.History {
		if !h.EmptyLayer {
			from--
		}
	}
	for ; from > 0; from-- {
		c.History = append(c.History, v1.History{CreatedBy: "unknown", Comment: "the image did not say"})
	}
	for i := n - 1; i >= 0 && from < 0; i-- {
		if !c.History[i].EmptyLayer {
			c.History[i].EmptyLayer = true
			from++
		}
	}
	for _, h := range history[n:] {
		c.History = append(c.History, v1.History{Created: v1.Time{Time: h.Created}, CreatedBy: h.CreatedBy, Comment: h.Comment, EmptyLayer: h.EmptyLayer})
	}
	return true
}

// overConfig changes a configuration to what c says, where it says another thing
// than the configuration. All that has no place in c stays as it is.
func overConfig(raw []byte, c *v1.ConfigFile) ([]byte, error) {
	was, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("the container's configuration: %w", err)
	}
	old, err := json.Marshal(was)
	if err != nil {
		return nil, err
	}
	changed, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	return overValue(raw, old, changed)
}

// overValue changes what two forms of a value differ in, in a third that may have
// more. Objects are changed field by field, arrays item by item.
func overValue(raw, was, now json.RawMessage) (json.RawMessage, error) {
	if bytes.Equal(was, now) {
		return raw, nil
	}
	var r, w, n map[string]json.RawMessage
	if isObject(raw) && isObject(was) && isObject(now) {
		for from, to := range map[*json.RawMessage]*map[string]json.RawMessage{&raw: &r, &was: &w, &now: &n} {
			if err := json.Unmarshal(*from, to); err != nil {
				return nil, err
			}
		}
		return overObject(r, w, n)
	}
	var rs, ws, ns []json.RawMessage
	if json.Unmarshal(raw, &rs) != nil || json.Unmarshal(was, &ws) != nil || json.Unmarshal(now, &ns) != nil || len(rs) != len(ws) {
		return now, nil
	}
	for i := range ns {
		if i < len(ws) && bytes.Equal(ws[i], ns[i]) {
			ns[i] = rs[i]
		}
	}
	return json.Marshal(ns)
}

func isObject(b json.RawMessage) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) }

func overObject(raw, was, now map[string]json.RawMessage) (json.RawMessage, error) {
	for key := range was {
		if _, stays := now[key]; !stays {
			deleteFold(raw, key)
		}
	}
	for key, value := range now {
		if bytes.Equal(was[key], value) {
			continue
		}
		if have, ok := raw[key]; ok && was[key] != nil {
			changed, err := overValue(have, was[key], value)
			if err != nil {
				return nil, err
			}
			value = changed
		}
		deleteFold(raw, key)
		raw[key] = value
	}
	return json.Marshal(raw)
}

// deleteFold removes a field, whatever its case: JSON is read so.
func deleteFold(m map[string]json.RawMessage, key string) {
	for k := range m {
		if strings.EqualFold(k, key) {
			delete(m, k)
		}
	}
}
