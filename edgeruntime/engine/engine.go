// Package engine is what an edge needs of a container engine, in words of its
// own: containers and images, found again by label. It holds no behaviour. The
// engine that runs them is in package docker below it, one that only pretends in
// enginetest, and both pass the suite there.
package engine

import (
	"context"
	"errors"
	"io"
	"time"
)

// What errors of an Engine wrap, as far as it matters to whoever called.
var (
	// ErrUnavailable: the engine does not answer. The same call may work later.
	ErrUnavailable = errors.New("the container engine does not answer")
	// ErrNotFound: there is no such container, image or network.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the name is taken, or the container is not in a state for that.
	ErrConflict = errors.New("conflict")
	// ErrLeftRunning: a command was to be ended, and could not be.
	ErrLeftRunning = errors.New("the command runs on")
)

// Engine runs containers. All methods may be called from many goroutines; each
// ends with its ctx. Maps and slices that are handed over are not kept.
type Engine interface {
	Containers
	Images
	Streams
	// Info says what engine this is; ErrUnavailable when it does not answer.
	Info(ctx context.Context) (Info, error)
	// Network makes the bridge network of that name if there is none and returns it.
	Network(ctx context.Context, name string, labels map[string]string) (Network, error)
	// RemoveNetwork removes a network that nobody uses; one that is not there is fine.
	RemoveNetwork(ctx context.Context, name string) error
	// Close gives up what the engine's client holds. No other call may be running.
	Close() error
}

// Containers are made from a Spec and then have an id.
type Containers interface {
	// List returns the containers, running or not, that have all the labels. What
	// only Inspect knows is left empty: ExitCode, Error, OOMKilled, StartedAt, FinishedAt.
	List(ctx context.Context, labels map[string]string) ([]Container, error)
	Inspect(ctx context.Context, id string) (Container, error)
	// Create makes a container and does not start it. ErrNotFound: its image is not
	// here. ErrConflict: its name is taken.
	Create(ctx context.Context, s Spec) (id string, err error)
	// Start starts a container, for the first time or again. One that runs is left alone.
	Start(ctx context.Context, id string) error
	// Stop asks the container to end, kills it after grace, and returns when it has
	// ended. One that does not run is left alone.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove removes a container, running or not, and its anonymous volumes.
	// ErrNotFound when it is not there.
	Remove(ctx context.Context, id string) error
}

// Images are what containers are made from.
type Images interface {
	// Image returns what ref means here, without asking anybody else.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches ref from its registry and returns when it is here. progress may
	// be nil; it is called from one goroutine.
	Pull(ctx context.Context, ref string, progress func(Progress)) error
	// Tag gives an image, by its id or one of its names, one more name. Another image
	// of that name loses it.
	Tag(ctx context.Context, image, ref string) error
	// Untag takes one of its names from an image; with its last one it goes. One that
	// has no name is removed by its id. ErrConflict: a container needs it.
	Untag(ctx context.Context, ref string) error
	// Load takes in an archive as `docker save` writes it, and returns the names in it.
	Load(ctx context.Context, archive io.Reader) ([]string, error)
}

// Streams are what goes on for as long as somebody listens.
type Streams interface {
	// Events calls emit, from one goroutine, for what happens from since on to
	// containers that have all the labels, until ctx ends or the engine does. It
	// never returns nil. Events are hints: some may be missing.
	Events(ctx context.Context, labels map[string]string, since time.Time, emit func(Event)) error
	// Logs calls emit, from one goroutine, with what a container has said in all its
	// lives, and with Follow with what it says until it ends or the engine does, which
	// may be a nil error, too. While emit takes its time nothing more is read. It
	// returns emit's error.
	Logs(ctx context.Context, id string, o LogOptions, emit func(LogEntry) error) error
	// Exec runs a command inside a running container and returns its exit code. When
	// ctx ends, or what the command says is not taken, the command is ended:
	// ErrLeftRunning when it could not be. ErrConflict: the container does not run.
	Exec(ctx context.Context, id string, e ExecSpec) (exitCode int, err error)
	// Stats measures a running container once.
	Stats(ctx context.Context, id string) (Stats, error)
}

// Info is what an engine says of itself.
type Info struct {
	Name       string // docker
	Version    string
	APIVersion string // that is spoken with it
	OS, Arch   string
	CPUs       int
	Memory     int64 // bytes
	Containers int
	Images     int
	Root       string // the folder where it keeps everything; "" when that is not known
}

// Network is one that containers are in.
type Network struct {
	Name    string
	ID      string
	Gateway string // the address at which the containers reach this machine
	Subnet  string // CIDR
}

// Spec is a container to be made.
type Spec struct {
	Name     string
	Image    string
	Labels   map[string]string
	Command  []string // instead of the image's entrypoint, when not empty
	Args     []string // instead of the image's command, when not empty
	Env      []string // NAME=value
	Hostname string
	// Network is the name of a network, "host" for the machine's own, or
	// ContainerNetwork of a container whose network is shared.
	Network string
	Ports   []Port
	Mounts  []Mount
	Devices []Device

	Memory    int64 // bound in bytes, 0 for none
	NanoCPUs  int64 // bound in billionths of a CPU, 0 for none
	CPUShares int64 // weight when CPU is short, 0 for the default

	LogBytes int64 // bound of one log file, 0 for none
	LogFiles int   // how many are kept
}

// ContainerNetwork is the Spec.Network of a container that shares that of another.
func ContainerNetwork(id string) string { return "container:" + id }

// HostNetwork is the Spec.Network of a container in the machine's own.
const HostNetwork = "host"

// Port is one that the machine forwards.
type Port struct {
	HostIP    string // "" for all addresses
	Host      uint16
	Container uint16
	Protocol  string // tcp or udp
}

// Mount is a file or a directory of the machine inside a container, or a
// directory in memory, which is emptied when the container ends.
type Mount struct {
	Source   string // not with Memory
	Target   string
	ReadOnly bool
	Memory   bool
	Size     int64 // bound in bytes with Memory, 0 for none
}

// Device is a device file of the machine inside a container.
type Device struct {
	Source string
	Target string
	// Permissions are some of r, w and m.
	Permissions string
}

// State is where a container is in its life.
type State string

// The states that matter. Another is not running.
const (
	Created    State = "created"
	Running    State = "running"
	Paused     State = "paused"
	Restarting State = "restarting"
	Exited     State = "exited"
	Removing   State = "removing"
	Dead       State = "dead"
)

// Container is one as the engine has it.
type Container struct {
	ID      string
	Name    string
	Image   string // as its Spec said
	ImageID string
	Labels  map[string]string
	State   State
	IP      string // in its network; "" with the machine's own, or another container's

	ExitCode   int
	Error      string // why it could not be started
	OOMKilled  bool   // the last time it ended, memory was the reason
	CreatedAt  time.Time
	StartedAt  time.Time // zero when it never was
	FinishedAt time.Time // zero when it never has
}

// Image is one that is here.
type Image struct {
	ID      string   // digest of its configuration
	Names   []string // NAME:TAG
	Digests []string // NAME@sha256:…, as registries call it; none for one that was never in any
	Size    int64
}

// Progress is how far a pull is.
type Progress struct {
	Done, Total int64 // bytes; Total grows as layers become known
	Layers      int
	Here        []string // beginnings of the digests of layers that need not be fetched
	Waiting     string   // why nothing comes at present, "" while something does
}

// Event is something that happened to a container.
type Event struct {
	Container string // id
	Action    string // start, die, oom, destroy, …
	Time      time.Time
}

// Stream is one of the two that a container talks on.
type Stream byte

// The streams, by the numbers that Unix and Docker give them.
const (
	Both   Stream = 0 // of LogOptions: whichever it is
	Stdout Stream = 1
	Stderr Stream = 2
)

// LogOptions say what of a log is wanted.
type LogOptions struct {
	Follow bool
	Tail   int // so many entries of what there is and else fits; negative for all
	Since  time.Time
	Until  time.Time // zero for no bound
	Only   Stream
}

// LogEntry is a line that a container has said, or a part of one.
type LogEntry struct {
	Time   time.Time // by the engine's clock; the parts of a line have that of its beginning
	Stream Stream
	// Data ends with the line's end. Where it does not, the line goes on in the
	// stream's next entry: engines cut long ones. Valid until emit returns.
	Data []byte
}

// Size is that of a terminal.
type Size struct{ Columns, Rows uint16 }

// ExecSpec is a command to run inside a container.
type ExecSpec struct {
	Command []string
	Env     []string
	// TTY gives the command a terminal. All that it says then comes on Stdout.
	TTY bool
	// Resize tells the terminal's size, at first and when it changes; nil without
	// one. Exec reads it until it is closed or the command has ended.
	Resize <-chan Size
	// Stdin may be nil. When it ends, so does the command's. Its last Read may come
	// back after Exec has returned.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // may be nil
}

// Stats is what a container used.
type Stats struct {
	CPU    time.Duration // since its start
	Memory int64         // bytes, caches left out
	Limit  int64         // of memory; the machine's when there is none
	Time   time.Time
}
