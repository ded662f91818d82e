package workload

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine"
	"github.com/whimbrel-edge/whimbrel/models"
)

// The files of a generation's volumes are in a folder of its own, which goes with
// it: emptyDir and configMap on the disk, secret in memory where that can be.
//
// A volume of a ConfigMap or Secret is files that are links into ..data, which is
// a link to the folder of one version. A new version is written beside the old
// one, and the link is replaced: who reads sees one or the other.

// dataLink is what the files of a volume point through.
const dataLink = "..data"

// volumes makes the volumes of one generation.
type volumes struct {
	dir       string // on the disk
	secretDir string // in memory, or else beside dir
	// secretRoot holds the secretDirs of all pods: nobody else may look into it.
	secretRoot string
	namespace  string
	spec       *models.PodSpec
	from       configs
}

// prepare makes all volumes what they are to be, and is called again when a
// ConfigMap or Secret has changed. An error of type missing may go away by itself.
func (v volumes) prepare() error {
	for i := range v.spec.Volumes {
		vol := &v.spec.Volumes[i]
		var err error
		switch {
		case vol.EmptyDir != nil && vol.EmptyDir.Medium == "":
			err = makeDir(v.path(vol), 0o777)
		case vol.ConfigMap != nil:
			data, ok := v.from.configMap(key{v.namespace, vol.ConfigMap.Name})
			err = project(v.path(vol), "ConfigMap "+vol.ConfigMap.Name, data, ok, &vol.ConfigMap.Projection)
		case vol.Secret != nil:
			data, ok := v.from.secret(key{v.namespace, vol.Secret.SecretName})
			if err = makePrivate(v.secretRoot); err != nil {
				break
			}
			err = project(v.path(vol), "Secret "+vol.Secret.SecretName, data, ok, &vol.Secret.Projection)
		case vol.HostPath != nil:
			err = checkHostPath(vol.HostPath)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v volumes) path(vol *models.Volume) string {
	switch {
	case vol.HostPath != nil:
		return vol.HostPath.Path
	case vol.Secret != nil:
		return filepath.Join(v.secretDir, vol.Name)
	}
	return filepath.Join(v.dir, vol.Name)
}

// remove takes away all but what is on the machine itself.
func (v volumes) remove() error {
	err := errors.Join(os.RemoveAll(v.dir), os.RemoveAll(v.secretDir))
	for _, dir := range []string{filepath.Dir(v.dir), filepath.Dir(v.secretDir), v.secretRoot} {
		_ = os.Remove(dir) // unless others have something there
	}
	return err
}

// makePrivate makes a folder that only this user can look into. One that is there
// must be such: whoever made it first in a place that is open to all could read
// what is put into it.
func makePrivate(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if !private(dir) {
		return fmt.Errorf("%s is open to others: remove it", dir)
	}
	return nil
}

// mounts are what a container sees of the volumes.
func (v volumes) mounts(c *models.Container) (mounts []engine.Mount, devices []engine.Device, err error) {
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(v.spec.Volumes, func(vol models.Volume) bool { return vol.Name == m.Name })
		if i < 0 {
			return nil, nil, fmt.Errorf("no volume is called %s", m.Name)
		}
		vol := &v.spec.Volumes[i]
		source, readOnly := v.path(vol), m.ReadOnly || vol.ConfigMap != nil || vol.Secret != nil
		switch {
		case vol.HostPath != nil && isDevice(vol.HostPath):
			permissions := "rwm"
			if m.ReadOnly {
				permissions = "r"
			}
			devices = append(devices, engine.Device{Source: source, Target: m.MountPath, Permissions: permissions})
			continue
		case vol.EmptyDir != nil && vol.EmptyDir.Medium == "Memory":
			mounts = append(mounts, engine.Mount{Target: m.MountPath, Memory: true, Size: vol.EmptyDir.SizeLimit.Value(), ReadOnly: m.ReadOnly})
			continue
		case m.SubPath == "":
		case vol.ConfigMap != nil || vol.Secret != nil:
			source = filepath.Join(source, m.SubPath) // nobody else writes there
			if _, err := os.Stat(source); err != nil {
				return nil, nil, missing(fmt.Sprintf("volume %s has no file %s", m.Name, m.SubPath))
			}
		default:
			if source, err = inside(source, m.SubPath); err != nil {
				return nil, nil, fmt.Errorf("volume %s: subPath %s: %w", m.Name, m.SubPath, err)
			}
		}
		mounts = append(mounts, engine.Mount{Source: source, Target: m.MountPath, ReadOnly: readOnly})
	}
	return mounts, devices, nil
}

// inside is the path of sub below dir, which is made when it is not there. It must
// not lead out through a link that an app has made.
func inside(dir, sub string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	at := ""
	for part := range strings.SplitSeq(sub, "/") {
		at = filepath.Join(at, part)
		info, err := root.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			if err = root.Mkdir(at, 0o777); err == nil {
				info, err = root.Lstat(at)
			}
		}
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return "", errors.New("it goes through a link, which could lead out of the volume")
		}
	}
	return filepath.Join(dir, at), nil
}

func makeDir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, mode) // past the umask
}

// file is one to be shown.
type file struct {
	data []byte
	mode fs.FileMode
}

// project shows data as files below dir.
func project(dir, what string, data map[string][]byte, found bool, j *models.Projection) error {
	if !found && !j.Optional {
		return missing("there is no " + what)
	}
	mode := func(m *int32) fs.FileMode {
		switch {
		case m != nil:
			return fs.FileMode(*m).Perm()
		case j.DefaultMode != nil:
			return fs.FileMode(*j.DefaultMode).Perm()
		}
		return 0o644
	}
	files := map[string]file{}
	for _, item := range j.Items {
		text, ok := data[item.Key]
		if !ok && !j.Optional {
			return missing(fmt.Sprintf("%s has no key %s", what, item.Key))
		}
		if ok {
			files[filepath.Clean(item.Path)] = file{text, mode(item.Mode)}
		}
	}
	if len(j.Items) == 0 {
		for name, text := range data {
			files[name] = file{text, mode(nil)}
		}
	}
	for name := range files {
		if strings.HasPrefix(name, "..") { // ours
			return missing(fmt.Sprintf("%s: key %s cannot be a file: its name begins with two dots", what, name))
		}
	}
	return swap(dir, files)
}

// swap makes the files below dir exactly these, all at once.
func swap(dir string, files map[string]file) error {
	if err := makeDir(dir, 0o755); err != nil {
		return err
	}
	before, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if before != "" && same(filepath.Join(dir, before), files) {
		return nil
	}
	n, _ := strconv.Atoi(strings.TrimPrefix(before, "..v")) // 0 at first
	version := "..v" + strconv.Itoa(n+1)
	if err := os.RemoveAll(filepath.Join(dir, version)); err != nil { // of one that broke off
		return err
	}
	if err := makeDir(filepath.Join(dir, version), 0o755); err != nil {
		return err
	}
	tops := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, version, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, files[name].data, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(path, files[name].mode); err != nil {
			return err
		}
		top, _, _ := strings.Cut(name, "/")
		tops[top] = true
	}
	if err := link(version, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	return tidy(dir, version, tops)
}

// same reports whether a version holds exactly these files.
func same(dir string, files map[string]file) bool {
	seen := 0
	differs := errors.New("differs")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if f, ok := files[name]; !ok || info.Mode().Perm() != f.mode || !bytes.Equal(text, f.data) {
			return differs
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}

// link makes path a link to target, whatever it was before, at once.
func link(target, path string) error {
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// tidy makes the links that apps see, and takes away what is not shown any more.
func tidy(dir, version string, tops map[string]bool) error {
	for top := range tops {
		if target, err := os.Readlink(filepath.Join(dir, top)); err == nil && target == dataLink+"/"+top {
			continue
		}
		if err := link(dataLink+"/"+top, filepath.Join(dir, top)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != dataLink && name != version && !tops[name] {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// isDevice reports whether a hostPath is given to containers as a device.
func isDevice(h *models.HostPath) bool {
	switch h.Type {
	case "CharDevice", "BlockDevice":
		return true
	case "":
		info, err := os.Stat(h.Path)
		return err == nil && info.Mode()&fs.ModeDevice != 0
	}
	return false
}

// checkHostPath makes of a hostPath what its type says, or says why not.
func checkHostPath(h *models.HostPath) error {
	switch h.Type {
	case "DirectoryOrCreate":
		return os.MkdirAll(h.Path, 0o755)
	case "FileOrCreate":
		f, err := os.OpenFile(h.Path, os.O_RDONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	info, err := os.Stat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing("there is no " + h.Path + " on this node")
	}
	if err != nil {
		return err
	}
	mode := info.Mode()
	ok := map[string]bool{"": true, "Directory": mode.IsDir(), "File": mode.IsRegular(), "Socket": mode&fs.ModeSocket != 0,
		"CharDevice": mode&fs.ModeCharDevice != 0, "BlockDevice": mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0}
	if !ok[h.Type] {
		return missing(fmt.Sprintf("%s on this node is no %s", h.Path, h.Type))
	}
	return nil
}
