package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/whimbrel-edge/whimbrel/models"
)

// data is the ConfigMaps and Secrets of a test, by name.
type data struct {
	maps, secrets map[string]map[string][]byte
}

func (d data) configMap(k key) (map[string][]byte, bool) { m, ok := d.maps[k.name]; return m, ok }
func (d data) secret(k key) (map[string][]byte, bool)    { m, ok := d.secrets[k.name]; return m, ok }

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestProjection(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	private := new(int32(0o400))
	j := &models.Projection{Items: []models.KeyToPath{{Key: "a", Path: "deep/er/a"}, {Key: "b", Path: "b", Mode: private}}}
	if err := project(dir, "ConfigMap x", map[string][]byte{"a": []byte("1"), "b": []byte("2"), "c": []byte("3")}, true, j); err != nil {
		t.Fatal(err)
	}
	if text(t, filepath.Join(dir, "deep/er/a")) != "1" || text(t, filepath.Join(dir, "b")) != "2" {
		t.Error("the files are wrong")
	}
	if _, err := os.Stat(filepath.Join(dir, "c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key that was not asked for: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "b")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// The same once more changes nothing; less takes files away.
	version, _ := os.Readlink(filepath.Join(dir, dataLink))
	if err := project(dir, "ConfigMap x", map[string][]byte{"a": []byte("1"), "b": []byte("2")}, true, j); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(filepath.Join(dir, dataLink)); again != version {
		t.Errorf("%s became %s without a change", version, again)
	}
	j.Items, j.Optional = j.Items[:1], true
	if err := project(dir, "ConfigMap x", nil, false, j); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
	for what, err := range map[string]error{
		"no map":      project(dir, "ConfigMap x", nil, false, &models.Projection{}),
		"no key":      project(dir, "ConfigMap x", nil, true, &models.Projection{Items: []models.KeyToPath{{Key: "z", Path: "z"}}}),
		"a bad key":   project(dir, "ConfigMap x", map[string][]byte{"..data": nil}, true, &models.Projection{}),
		"a bad key 2": project(dir, "ConfigMap x", map[string][]byte{"..v9": nil}, true, &models.Projection{}),
	} {
		if m := missing(""); !errors.As(err, &m) || !strings.Contains(err.Error(), "ConfigMap x") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestSwapIsWhole reads while versions change: two files that belong together are
// never of two versions for a reader who holds on to one.
func TestSwapIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	write := func(i int) {
		v := []byte(fmt.Sprint(i))
		if err := swap(dir, map[string]file{"a": {v, 0o644}, "b": {v, 0o644}}); err != nil {
			t.Error(err)
		}
	}
	write(0)
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		defer close(done)
		for i := range 300 {
			write(i)
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		root, err := os.OpenRoot(filepath.Join(dir, dataLink)) // one version
		if err != nil {
			continue // it went between the link and its folder
		}
		a, errA := root.ReadFile("a")
		b, errB := root.ReadFile("b")
		if errA == nil && errB == nil && string(a) != string(b) {
			t.Errorf("a is of version %s, b of %s", a, b)
		}
		_ = root.Close()
	}
	wait.Wait()
	// What a crash leaves is no hindrance.
	for _, name := range []string{"..v301", "..v999", "..data.new", "stray"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(1000)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 || text(t, filepath.Join(dir, "a")) != "1000" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestSubPath(t *testing.T) {
	base := t.TempDir()
	v := volumes{dir: base, secretDir: base, namespace: "default", from: data{maps: map[string]map[string][]byte{"m": {"k": []byte("v")}}},
		spec: &models.PodSpec{Volumes: []models.Volume{{Name: "e", EmptyDir: &models.EmptyDir{}}, {Name: "m", ConfigMap: &models.ConfigVolume{Name: "m"}}}}}
	if err := v.prepare(); err != nil {
		t.Fatal(err)
	}
	mount := func(name, sub string) (string, error) {
		mounts, _, err := v.mounts(&models.Container{VolumeMounts: []models.VolumeMount{{Name: name, MountPath: "/x", SubPath: sub}}})
		if err != nil {
			return "", err
		}
		return mounts[0].Source, nil
	}
	if got, err := mount("e", "a/b"); err != nil || got != filepath.Join(base, "e/a/b") {
		t.Errorf("%s, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(base, "e/a/b")); err != nil || !info.IsDir() {
		t.Errorf("it was not made: %v", err)
	}
	// As an app could, to get at the machine's files.
	if err := os.Symlink("/etc", filepath.Join(base, "e/way-out")); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"way-out", "way-out/ssl"} {
		if got, err := mount("e", sub); err == nil {
			t.Errorf("%s leads to %s", sub, got)
		}
	}
	if got, err := mount("m", "k"); err != nil || text(t, got) != "v" {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := mount("m", "none"); err == nil {
		t.Error("a key that is not there is mounted")
	}
}

func TestSecretsAreKeptApart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "memory")
	v := volumes{dir: filepath.Join(t.TempDir(), "pod", "gen"), secretDir: filepath.Join(root, "pod", "gen"), secretRoot: root, namespace: "default",
		from: data{secrets: map[string]map[string][]byte{"s": {"k": []byte("v")}}},
		spec: &models.PodSpec{Volumes: []models.Volume{{Name: "s", Secret: &models.SecretVolume{SecretName: "s"}}}}}
	if err := v.prepare(); err != nil || text(t, filepath.Join(root, "pod/gen/s/k")) != "v" {
		t.Errorf("made: %v", err)
	}
	if err := v.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the last there is still the folder: %v", err)
	}
	// As somebody else on the machine could have made it before.
	if err := os.Mkdir(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := v.prepare(); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("in a folder of everybody's: %v", err)
	}
}

func TestHostPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, kind string
		ok, device bool
	}{
		{dir, "", true, false}, {dir, "Directory", true, false}, {dir, "File", false, false}, {dir + "/file", "File", true, false}, {dir + "/file", "Directory", false, false},
		{dir + "/new", "", false, false}, {dir + "/new", "Directory", false, false}, {dir + "/made", "DirectoryOrCreate", true, false}, {dir + "/made-file", "FileOrCreate", true, false},
		{"/dev/null", "", true, true}, {"/dev/null", "CharDevice", true, true}, {"/dev/null", "BlockDevice", false, true}, {dir + "/file", "CharDevice", false, true}, {dir + "/file", "Socket", false, false},
	} {
		h := &models.HostPath{Path: tt.path, Type: tt.kind}
		if err := checkHostPath(h); (err == nil) != tt.ok {
			t.Errorf("%s as %q: %v", tt.path, tt.kind, err)
		}
		if got := isDevice(h); got != tt.device {
			t.Errorf("%s as %q is a device: %v", tt.path, tt.kind, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	from := data{maps: map[string]map[string][]byte{"m": {"A": []byte("1"), "not ok": nil, "B": []byte("2"), "bin": {1, 0}}}, secrets: map[string]map[string][]byte{"s": {"A": []byte("3")}, "z": {"zero": []byte("hid\x00den")}}}
	c := &models.Container{
		EnvFrom: []models.EnvFrom{{ConfigMapRef: &models.ObjectRef{Name: "m"}}, {SecretRef: &models.ObjectRef{Name: "s"}}, {ConfigMapRef: &models.ObjectRef{Name: "none", Optional: true}}},
		Env:     []models.EnvVar{{Name: "B", Value: "over"}, {Name: "C", ValueFrom: &models.EnvSource{SecretKeyRef: &models.KeyRef{Name: "s", Key: "none", Optional: true}}}},
	}
	got, err := environment("default", c, from, map[string]string{"WHIMBREL_NODE": "n"})
	if want := "[A=3 B=over WHIMBREL_NODE=n]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
	for want, e := range map[string]models.EnvVar{
		"there is no Secret x":     {Name: "X", ValueFrom: &models.EnvSource{SecretKeyRef: &models.KeyRef{Name: "x", Key: "k"}}},
		"ConfigMap m has no key k": {Name: "X", ValueFrom: &models.EnvSource{ConfigMapKeyRef: &models.KeyRef{Name: "m", Key: "k"}}},
	} {
		if _, err := environment("default", &models.Container{Env: []models.EnvVar{e}}, from, nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	// The engine's own words would have the value in them.
	const want = "key zero of Secret z has a zero byte in it, which no variable can have: mount it as a file"
	for _, c := range []*models.Container{{EnvFrom: []models.EnvFrom{{SecretRef: &models.ObjectRef{Name: "z"}}}},
		{Env: []models.EnvVar{{Name: "X", ValueFrom: &models.EnvSource{SecretKeyRef: &models.KeyRef{Name: "z", Key: "zero"}}}}}} {
		if _, err := environment("default", c, from, nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
