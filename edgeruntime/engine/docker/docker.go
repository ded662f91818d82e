// Package docker is engine.Engine by way of the Docker engine, and the only one
// that knows its API. The version of that is negotiated: engines of 2020 (API
// 1.41) and later are known to work.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
)

// Docker is a client of one engine. Nothing is dialled before the first call.
type Docker struct{ cli *client.Client }

var _ engine.Engine = (*Docker)(nil)

// New returns a client of the engine at host, such as unix:///run/docker.sock;
// with "", of the one that DOCKER_HOST and its companions name, else of that at
// the default socket.
func New(host string) (*Docker, error) {
	// Without the negotiation an engine older than this client refuses every call.
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = []client.Opt{client.WithHost(host), client.WithAPIVersionNegotiation()}
	}
	cli, err := client.NewClientWithOpts(append(opts, readMuch)...)
	if err != nil {
		return nil, fmt.Errorf("container engine: %w", err)
	}
	return &Docker{cli: cli}, nil
}

// atOnce is how much of what an engine sends is read at once. The usual is too little
// for a log, which comes as one short write a line.
const atOnce = 64 << 10

func readMuch(c *client.Client) error {
	if t, ok := c.HTTPClient().Transport.(*http.Transport); ok {
		t.ReadBufferSize = atOnce
	}
	return nil
}

// Host is where the engine is looked for.
func (d *Docker) Host() string { return d.cli.DaemonHost() }

// Close implements engine.Engine.
func (d *Docker) Close() error { return d.cli.Close() }

// wrap says what was tried and tells apart what callers tell apart.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	kind := error(nil)
	var netErr net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errdefs.IsNotFound(err):
		kind = engine.ErrNotFound
	case errdefs.IsConflict(err):
		kind = engine.ErrConflict
	case client.IsErrConnectionFailed(err), errdefs.IsUnavailable(err), errors.As(err, &netErr),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrNotExist), errors.Is(err, os.ErrPermission):
		kind = engine.ErrUnavailable
	}
	text := strings.TrimPrefix(err.Error(), "Error response from daemon: ")
	if rest, ok := strings.CutPrefix(text, "Cannot connect to the Docker daemon at "); ok {
		host, _, _ := strings.Cut(rest, ". Is the docker daemon running")
		return &failure{"no container engine answers at " + host, errors.Join(kind, err)}
	}
	if kind == nil {
		return &failure{what + ": " + text, err}
	}
	return &failure{what + ": " + text, errors.Join(kind, err)}
}

// failure reads without the decorations of those that it wraps.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// Info implements engine.Engine.
func (d *Docker) Info(ctx context.Context) (engine.Info, error) {
	// Many edges have no engine, and ask for one for ever: the client need not be
	// woken for that.
	if path, ok := strings.CutPrefix(d.cli.DaemonHost(), "unix://"); ok {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return engine.Info{}, &failure{"no container engine answers at " + d.cli.DaemonHost(), errors.Join(engine.ErrUnavailable, err)}
		}
	}
	i, err := d.cli.Info(ctx)
	if err != nil {
		return engine.Info{}, wrap("engine info", err)
	}
	return engine.Info{Name: "docker", Version: i.ServerVersion, APIVersion: d.cli.ClientVersion(), OS: i.OSType, Arch: i.Architecture, CPUs: i.NCPU,
		Memory: i.MemTotal, Containers: i.Containers, Images: i.Images, Root: i.DockerRootDir}, nil
}

// Network implements engine.Engine.
func (d *Docker) Network(ctx context.Context, name string, labels map[string]string) (engine.Network, error) {
	for {
		n, err := d.cli.NetworkInspect(ctx, name, network.InspectOptions{})
		if err == nil {
			return networkOf(n)
		}
		if !errdefs.IsNotFound(err) {
			return engine.Network{}, wrap("inspect network "+name, err)
		}
		if _, err := d.cli.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: labels}); err != nil && !errdefs.IsConflict(err) {
			return engine.Network{}, wrap("create network "+name, err)
		}
	}
}

func networkOf(n network.Inspect) (engine.Network, error) {
	out := engine.Network{Name: n.Name, ID: n.ID}
	for _, c := range n.IPAM.Config {
		if ip := net.ParseIP(c.Gateway); ip != nil && ip.To4() != nil {
			out.Gateway, out.Subnet = c.Gateway, c.Subnet
			return out, nil
		}
	}
	return out, fmt.Errorf("network %s has no IPv4 gateway: remove it (docker network rm %s) to have it made anew", n.Name, n.Name)
}

// RemoveNetwork implements engine.Engine.
func (d *Docker) RemoveNetwork(ctx context.Context, name string) error {
	if err := d.cli.NetworkRemove(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return wrap("remove network "+name, err)
	}
	return nil
}

func labelFilter(labels map[string]string) filters.Args {
	f := filters.NewArgs()
	for k, v := range labels {
		f.Add("label", k+"="+v)
	}
	return f
}

// List implements engine.Containers.
func (d *Docker) List(ctx context.Context, labels map[string]string) ([]engine.Container, error) {
	list, err := d.cli.ContainerList(ctx, container.ListOptions{All: true, Filters: labelFilter(labels)})
	if err != nil {
		return nil, wrap("list containers", err)
	}
	out := make([]engine.Container, 0, len(list))
	for _, c := range list {
		e := engine.Container{ID: c.ID, Image: c.Image, ImageID: c.ImageID, Labels: c.Labels, State: engine.State(c.State), CreatedAt: time.Unix(c.Created, 0).UTC()}
		if len(c.Names) > 0 {
			e.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		if c.NetworkSettings != nil {
			for _, n := range c.NetworkSettings.Networks {
				e.IP = n.IPAddress
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// Inspect implements engine.Containers.
func (d *Docker) Inspect(ctx context.Context, id string) (engine.Container, error) {
	c, err := d.cli.ContainerInspect(ctx, id)
	if err != nil {
		return engine.Container{}, wrap("inspect container", err)
	}
	e := engine.Container{ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Image: c.Config.Image, ImageID: c.Image, Labels: c.Config.Labels, CreatedAt: timeOf(c.Created)}
	if c.NetworkSettings != nil {
		for _, n := range c.NetworkSettings.Networks {
			e.IP = n.IPAddress
		}
	}
	if s := c.State; s != nil {
		e.State, e.ExitCode, e.Error, e.OOMKilled = engine.State(s.Status), s.ExitCode, s.Error, s.OOMKilled
		e.StartedAt, e.FinishedAt = timeOf(s.StartedAt), timeOf(s.FinishedAt)
		if e.State == engine.Exited && e.FinishedAt.Before(e.StartedAt) {
			e.FinishedAt = e.StartedAt // of one that ends at once the engine may write down the start last
		}
	}
	return e, nil
}

// timeOf reads a time of the engine, whose zero is that of year 1.
func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// Create implements engine.Containers.
func (d *Docker) Create(ctx context.Context, s engine.Spec) (string, error) {
	cfg := &container.Config{Image: s.Image, Labels: s.Labels, Entrypoint: s.Command, Cmd: s.Args, Env: s.Env, Hostname: s.Hostname, ExposedPorts: nat.PortSet{}}
	host := &container.HostConfig{
		NetworkMode:   container.NetworkMode(s.Network),
		PortBindings:  nat.PortMap{},
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled}, // restarting is the edge's: it has a back-off, and says so
		Resources:     container.Resources{Memory: s.Memory, NanoCPUs: s.NanoCPUs, CPUShares: s.CPUShares},
	}
	if s.Memory > 0 {
		host.MemorySwap = s.Memory // else as much swap again would be allowed
	}
	for _, p := range s.Ports {
		port := nat.Port(strconv.Itoa(int(p.Container)) + "/" + p.Protocol)
		cfg.ExposedPorts[port] = struct{}{}
		if p.Host != 0 {
			host.PortBindings[port] = append(host.PortBindings[port], nat.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.Host))})
		}
	}
	for _, m := range s.Mounts {
		if m.Memory {
			host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeTmpfs, Target: m.Target, ReadOnly: m.ReadOnly, TmpfsOptions: &mount.TmpfsOptions{SizeBytes: m.Size}})
			continue
		}
		// Not Binds: those make a directory of what is not there.
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	for _, dev := range s.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: dev.Source, PathInContainer: dev.Target, CgroupPermissions: dev.Permissions})
	}
	if s.LogBytes > 0 {
		host.LogConfig = container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": strconv.FormatInt(s.LogBytes, 10), "max-file": strconv.Itoa(max(s.LogFiles, 1))}}
	}
	created, err := d.cli.ContainerCreate(ctx, cfg, host, nil, nil, s.Name)
	if err != nil {
		return "", wrap("create container "+s.Name, err)
	}
	return created.ID, nil
}

// Start implements engine.Containers.
func (d *Docker) Start(ctx context.Context, id string) error {
	return wrap("start container", d.cli.ContainerStart(ctx, id, container.StartOptions{}))
}

// Stop implements engine.Containers.
func (d *Docker) Stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int((grace + time.Second - 1) / time.Second)
	return wrap("stop container", d.cli.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds}))
}

// Remove implements engine.Containers.
func (d *Docker) Remove(ctx context.Context, id string) error {
	return wrap("remove container", d.cli.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
}

// Image implements engine.Images.
func (d *Docker) Image(ctx context.Context, ref string) (engine.Image, error) {
	i, err := d.cli.ImageInspect(ctx, ref)
	if err != nil {
		return engine.Image{}, wrap("inspect image "+ref, err)
	}
	return engine.Image{ID: i.ID, Names: i.RepoTags, Digests: i.RepoDigests, Size: i.Size}, nil
}

// Pull implements engine.Images.
func (d *Docker) Pull(ctx context.Context, ref string, progress func(engine.Progress)) error {
	body, err := d.cli.ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		return wrap("pull "+ref, err)
	}
	defer body.Close()
	return wrap("pull "+ref, followPull(body, progress))
}

// Tag implements engine.Images.
func (d *Docker) Tag(ctx context.Context, image, ref string) error {
	return wrap("tag image "+ref, d.cli.ImageTag(ctx, image, ref))
}

// Untag implements engine.Images.
func (d *Docker) Untag(ctx context.Context, ref string) error {
	_, err := d.cli.ImageRemove(ctx, ref, image.RemoveOptions{})
	return wrap("untag image "+ref, err)
}

// pullMessage is one line of the engine's report.
type pullMessage struct {
	Status   string `json:"status"`
	ID       string `json:"id"` // of a layer
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error string `json:"error"`
}

// followPull reads the report of a pull to its end. An error in it is its result:
// the request itself has long been answered with 200.
func followPull(body io.Reader, progress func(engine.Progress)) error {
	type layer struct{ done, total int64 }
	layers := map[string]layer{}
	var here []string
	dec := json.NewDecoder(body)
	for {
		var m pullMessage
		switch err := dec.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case m.Error != "":
			return errors.New(m.Error)
		}
		if progress != nil && m.ID != "" && m.Status == "Already exists" {
			here = append(here, m.ID)
			progress(engine.Progress{Here: slices.Clone(here)})
		}
		if progress == nil || m.ID == "" || m.Progress.Total == 0 || !strings.HasPrefix(m.Status, "Downloading") {
			continue
		}
		layers[m.ID] = layer{m.Progress.Current, m.Progress.Total}
		p := engine.Progress{Layers: len(layers), Here: slices.Clone(here)}
		for _, l := range layers {
			p.Done, p.Total = p.Done+l.done, p.Total+l.total
		}
		progress(p)
	}
}

// Load implements engine.Images.
func (d *Docker) Load(ctx context.Context, archive io.Reader) ([]string, error) {
	answer, err := d.cli.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return nil, wrap("load image", err)
	}
	defer answer.Body.Close()
	var names []string
	dec := json.NewDecoder(answer.Body)
	for {
		var m struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
		}
		switch err := dec.Decode(&m); {
		case errors.Is(err, io.EOF):
			return names, nil
		case err != nil:
			return nil, wrap("load image", err)
		case m.Error != "":
			return nil, wrap("load image", errors.New(m.Error))
		}
		for _, mark := range []string{"Loaded image: ", "Loaded image ID: "} {
			if name, ok := strings.CutPrefix(strings.TrimSpace(m.Stream), mark); ok {
				names = append(names, name)
			}
		}
	}
}

// Events implements engine.Streams.
func (d *Docker) Events(ctx context.Context, labels map[string]string, since time.Time, emit func(engine.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := labelFilter(labels)
	f.Add("type", string(events.ContainerEventType))
	// Others, such as the three of every exec, are noise.
	for _, action := range []events.Action{events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionOOM, events.ActionDestroy, events.ActionPause, events.ActionUnPause} {
		f.Add("event", string(action))
	}
	o := events.ListOptions{Filters: f}
	if !since.IsZero() {
		o.Since = fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond())
	}
	messages, errs := d.cli.Events(ctx, o)
	for {
		select {
		case m := <-messages:
			emit(engine.Event{Container: m.Actor.ID, Action: string(m.Action), Time: time.Unix(0, m.TimeNano).UTC()})
		case err := <-errs:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				err = io.EOF
			}
			return wrap("engine events", err)
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// Stats implements engine.Streams.
func (d *Docker) Stats(ctx context.Context, id string) (engine.Stats, error) {
	answer, err := d.cli.ContainerStatsOneShot(ctx, id)
	if err != nil {
		return engine.Stats{}, wrap("stats", err)
	}
	defer answer.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		return engine.Stats{}, wrap("stats", err)
	}
	used := s.MemoryStats.Usage
	// Files that the kernel would give up at once; called so in cgroups of version 1 and 2.
	for _, cache := range []string{"total_inactive_file", "inactive_file"} {
		if n, ok := s.MemoryStats.Stats[cache]; ok && n < used {
			used -= n
			break
		}
	}
	return engine.Stats{CPU: time.Duration(s.CPUStats.CPUUsage.TotalUsage), Memory: int64(used), Limit: int64(s.MemoryStats.Limit), Time: s.Read}, nil
}
