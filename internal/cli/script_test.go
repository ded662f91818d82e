package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/whimbrel-edge/whimbrel/cloudapi"
	"github.com/whimbrel-edge/whimbrel/cloudapi/cloudapitest"
	hubimages "github.com/whimbrel-edge/whimbrel/devicehub/images"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
	"github.com/whimbrel-edge/whimbrel/models"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"whimbrel": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(Execute(ctx, New()))
		},
	})
}

type hubKey struct{}

// Each script talks to a hub of its own, in this process.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			h := cloudapitest.New()
			e.Values[hubKey{}] = h
			store, err := hubimages.Open(hubimages.Config{Dir: e.Getenv("WORK") + "/.images", Log: slog.New(slog.DiscardHandler), Now: time.Now})
			if err != nil {
				return err
			}
			e.Setenv("WHIMBREL_SERVER", cloudapitest.Serve(t, h, func(c *cloudapi.Config) { c.Log, c.Images = slog.New(slog.DiscardHandler), shelf{store} }))
			e.Setenv("WHIMBREL_TOKEN", cloudapitest.AdminToken)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("COLUMNS", "")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // each command would sleep a second
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"hub": playHub, "archive": makeArchive, "await": awaitFile, "code": exitCodeIs,
		},
	})
}

// shelf is a store of images in which no app names any.
type shelf struct{ *hubimages.Store }

// Prune implements cloudapi.Images.
func (s shelf) Prune(ctx context.Context, by string) (int, int64, error) {
	return s.Store.Prune(ctx, func(string, digest.Digest) bool { return false }, by)
}

// makeArchive makes a file as docker save does: archive FILE REF CONTENT.
func makeArchive(ts *testscript.TestScript, _ bool, args []string) {
	text, err := dockertest.Image(args[1], []string{"/app"}, map[string][]byte{"app": []byte(args[2])})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// playHub is what happens at the hub meanwhile:
//
//	hub report [NAMESPACE.]DEVICE PROPERTY VALUE [QUALITY REASON]
//	hub behave DEVICE confirms|refuses|silent
//	hub away DEVICE
//	hub raise TYPE REASON KIND/NAME MESSAGE
//	hub pod DEPLOYMENT-N
//	hub say POD LINE
//	hub cut POD [away]
//	hub back POD
//	hub dead ID ROUTE ERROR PAYLOAD
//	hub user NAME ROLE NAMESPACE VARIABLE
func playHub(ts *testscript.TestScript, _ bool, args []string) {
	h, ok := ts.Value(hubKey{}).(*cloudapitest.Hub)
	if !ok || len(args) < 2 {
		ts.Fatalf("hub: what?")
	}
	switch args[0] {
	case "report":
		s := models.Sample{Value: parseValue(args[3]), Time: time.Now()}
		if len(args) > 4 {
			ts.Check(s.Quality.UnmarshalText([]byte(args[4])))
			s.Reason = models.Reason(args[5])
		}
		namespace, device, qualified := strings.Cut(args[1], ".")
		if !qualified {
			namespace, device = "default", args[1]
		}
		h.Report(namespace, device, args[2], s)
	case "behave":
		h.Behave("default", args[1], map[string]cloudapitest.Behaviour{
			"confirms": cloudapitest.Confirms, "refuses": cloudapitest.Refuses, "silent": cloudapitest.Silent}[args[2]])
	case "raise":
		kind, name, _ := strings.Cut(args[3], "/")
		o := models.Occurrence{Object: models.ObjectReference{Kind: kind, Name: name}, Severity: models.Severity(args[1]), Reason: args[2], Message: args[4], Source: "test"}
		if kind == "Device" {
			o.Object.Namespace = "default"
		}
		h.Raise(o)
	case "away":
		h.SetAway("default", args[1], true)
	case "pod":
		deployment, _, _ := strings.Cut(args[1], "-")
		o, err := h.Get(context.Background(), models.Key{Kind: "Deployment", Namespace: "default", Name: deployment})
		ts.Check(err)
		d, _ := o.(*models.Deployment)
		p := &models.Pod{TypeMeta: models.TypeMeta{APIVersion: "v1", Kind: "Pod"}, Metadata: models.ObjectMeta{Name: args[1], Namespace: "default",
			OwnerReferences: []models.OwnerReference{{Kind: "Deployment", Name: deployment, UID: d.Metadata.UID}}}, Spec: d.Spec.Template.Spec}
		_, _, err = h.Update(context.Background(), models.KeyOf(p), models.WriteOptions{}, func(models.Object) (models.Object, error) { return p, nil })
		ts.Check(err)
	case "say":
		h.Say("default", args[1], args[2])
	case "cut":
		h.CutPod("default", args[1], len(args) > 2)
	case "back":
		h.CutPod("default", args[1], false)
	case "dead":
		id, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		h.AddDeadLetter(models.DeadLetter{ID: id, Key: "key", Node: "gateway-1", Topic: "a/b", Payload: []byte(args[4]), Target: "hub", Accepted: time.Now(), Died: time.Now(), Attempts: 1, Error: args[3]})
	case "user":
		token, err := h.AddUser(args[1], models.Role(args[2]), args[3])
		ts.Check(err)
		ts.Setenv(args[4], token)
	default:
		ts.Fatalf("hub: %s?", args[0])
	}
}

// awaitFile waits until a file that a command in the background writes holds a
// text: await FILE TEXT.
func awaitFile(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(text), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s never held %q but:\n%s", args[0], args[1], text)
		}
		time.Sleep(10 * time.Millisecond) //sleep: a file has nothing to wait on
	}
}

// exitCodeIs runs a command whose exit code must be the given one: code 2
// whimbrel get.
func exitCodeIs(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}
