package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/internal/imagearchive"
	"github.com/whimbrel-edge/whimbrel/internal/oci"
	"github.com/whimbrel-edge/whimbrel/models"
)

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		GroupID: GroupObjects,
		Short:   "Keep container images at the hub, from where the edges fetch them",
		Long: `Keeps container images at the hub, from where the edges fetch them. The hub is a registry, too:

  docker login HUB:8080          with the name of a user, and an API token as the password
  docker push HUB:8080/app:1`,
	}
	cmd.AddCommand(imagePushCommand(), imageListCommand(), imageRemoveCommand(), imagePruneCommand())
	return cmd
}

func imagePushCommand() *cobra.Command {
	var conn connection
	var tag, temp string
	cmd := &cobra.Command{
		Use:   "push TAR",
		Short: "Push the images in an archive: of docker save, or an OCI layout",
		Long: `Pushes the images in an archive, as docker save writes it, or with an OCI layout in it; "-" reads it from stdin. Layers that
the hub has are not sent. A push that was cut goes on where it was, also when the command is run again.

Images are called as the archive has them, without the name of the hub before it. Layers that are not compressed are, into
files in --temp, as large as they are then.`,
		Example: `  docker save example/anomaly:1 | whimbrel image push -
  whimbrel image push anomaly.tar --tag plant-a/anomaly:2`,
		Args: arguments(1, 1, `a TAR, or "-"`),
		RunE: func(cmd *cobra.Command, args []string) error {
			var as oci.Reference
			if tag != "" {
				var err error
				if as, err = oci.ParseReference(tag); err != nil {
					return Usagef("--tag: %w", err)
				}
				if as.Digest != "" {
					return Usagef("--tag must be NAME:TAG; the digest is what the image has")
				}
			}
			target, err := conn.resolve()
			if err != nil {
				return err
			}
			a, err := imagearchive.Open(args[0], temp)
			if err != nil {
				return err
			}
			err = conn.with(cmd, func(ctx context.Context, h hub) error {
				return pushArchive(ctx, cmd, h, a, tag != "", as, hostOf(target.Server))
			})
			if e := a.Close(); err == nil {
				err = e
			}
			return err
		},
	}
	conn.addFlags(cmd)
	cmd.Flags().StringVar(&tag, "tag", "", "what to call the image, NAME[:TAG]; the archive must have one image then")
	cmd.Flags().StringVar(&temp, "temp", "", "folder for what is made on the way (default: the system's)")
	return cmd
}

// hostOf is what those who push call the server.
func hostOf(server string) string {
	_, host, _ := strings.Cut(server, "://")
	host, _, _ = strings.Cut(host, "/")
	return host
}

func pushArchive(ctx context.Context, cmd *cobra.Command, h hub, a *imagearchive.Archive, named bool, as oci.Reference, host string) error {
	images, err := a.Images()
	if err != nil {
		return models.Errorf(models.KindMalformed, "%v", err) // the hub has nothing to do with it
	}
	if named && len(images) != 1 {
		return Usagef("--tag names one image, and the archive has %d", len(images))
	}
	// What cannot be is known before anything is sent.
	refs := make([][]oci.Reference, len(images))
	for n, i := range images {
		if named {
			refs[n] = []oci.Reference{as}
			continue
		}
		if len(i.Names) == 0 {
			return Usagef("an image in the archive has no name: say it with --tag NAME:TAG")
		}
		for _, name := range i.Names {
			ref, err := oci.ParseReference(name)
			if err != nil {
				return err
			}
			refs[n] = append(refs[n], ref)
		}
	}
	for n, i := range images {
		for m, ref := range refs[n] {
			if ref.Host == host {
				ref.Host = ""
			}
			if !oci.ValidRepository(ref.Name()) {
				return Usagef("the hub can have no repository %s: call the image something else with --tag", ref.Name())
			}
			refs[n][m] = ref
		}
		if err := pushImage(ctx, cmd, h, a, i, refs[n]); err != nil {
			return err
		}
	}
	return nil
}

// pushImage pushes an image under all of its names.
func pushImage(ctx context.Context, cmd *cobra.Command, h hub, a *imagearchive.Archive, i imagearchive.Image, refs []oci.Reference) error {
	p := newProgress(cmd.ErrOrStderr())
	defer p.clear()
	content, err := a.Content(ctx, i, func(layer, of int) { p.show(fmt.Sprintf("packing layer %d of %d", layer, of)) })
	if err != nil && ctx.Err() == nil {
		err = models.Errorf(models.KindMalformed, "%v", err)
	}
	if err != nil {
		return err
	}
	for _, ref := range refs {
		var sent int64
		for n, b := range content.Blobs {
			what := fmt.Sprintf("%s: part %d of %d", ref, n+1, len(content.Blobs))
			has, err := h.HasBlob(ctx, ref.Name(), b.Digest)
			if err != nil {
				return err
			}
			if has {
				p.line(fmt.Sprintf("%s %s  %s is there already", what, short12(b.Digest), bytesText(b.Size)))
				continue
			}
			began := time.Now()
			err = h.PushBlob(ctx, ref.Name(), b.Digest, b.Size, b.Open, func(at int64) {
				p.show(fmt.Sprintf("%s %s  %s of %s", what, short12(b.Digest), bytesText(at), bytesText(b.Size)))
			})
			if err != nil {
				return fmt.Errorf("%s %s: %w", what, short12(b.Digest), err)
			}
			sent += b.Size
			p.line(fmt.Sprintf("%s %s  %s in %.1f s", what, short12(b.Digest), bytesText(b.Size), time.Since(began).Seconds()))
		}
		for n, m := range content.Manifests {
			at := m.Digest.String()
			if n == len(content.Manifests)-1 {
				at = ref.Tag
			}
			if err := h.PutManifest(ctx, ref.Name(), at, m); err != nil {
				return err
			}
		}
		p.clear()
		last := content.Manifests[len(content.Manifests)-1]
		fmt.Fprintf(cmd.OutOrStdout(), "%s pushed: %s, %s sent\n", ref, last.Digest, bytesText(sent))
	}
	return nil
}

// progress is a line that changes on a terminal, and lines elsewhere.
type progress struct {
	w     io.Writer
	width int // 0: no terminal
	shown bool
	last  time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w: w, width: terminalWidth(w)} }

// show shows how far something is, where that can be taken back.
func (p *progress) show(text string) {
	if p.width == 0 || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last, p.shown = time.Now(), true
	fmt.Fprintf(p.w, "\r\x1b[K%s", text[:min(len(text), p.width-1)])
}

func (p *progress) line(text string) {
	p.clear()
	fmt.Fprintln(p.w, text)
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

func short12(d digest.Digest) string { return d.Encoded()[:min(12, len(d.Encoded()))] }

// bytesText says how many bytes something has, as docker does.
func bytesText(n int64) string {
	size := float64(n)
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if size < 999.5 || unit == "GB" {
			if unit == "B" || size >= 99.95 {
				return fmt.Sprintf("%.0f %s", size, unit)
			}
			return fmt.Sprintf("%.1f %s", size, unit)
		}
		size /= 1000
	}
	return ""
}

func imageListCommand() *cobra.Command {
	var conn connection
	var out output
	cmd := &cobra.Command{
		Use:     "ls [NAME]",
		Aliases: []string{"list"},
		Short:   "List the images that the hub keeps",
		Long: `Lists the images that the hub keeps, those of one repository when it is named. DIGEST is what a template can name, as
NAME@DIGEST, and what a pod's status shows; IMAGE ID is what a node's engine calls it.`,
		Args: arguments(0, 1, "at most the NAME of a repository"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.check(); err != nil {
				return err
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				all, err := h.Images(ctx)
				if err != nil {
					return err
				}
				if len(args) == 1 {
					all = slices.DeleteFunc(all, func(i oci.Image) bool { return i.Repository != args[0] })
				}
				if out.document() {
					return out.print(cmd.OutOrStdout(), map[string]any{"kind": "ImageList", "items": append([]oci.Image{}, all...)})
				}
				if len(all) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "no images")
					return nil
				}
				imageTable(all, out.format == "wide", time.Now()).write(cmd.OutOrStdout(), terminalWidth(cmd.OutOrStdout()), "")
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	out.addFlag(cmd, "wide", "json", "yaml")
	return cmd
}

func imageTable(all []oci.Image, wide bool, now time.Time) *table {
	t := &table{titles: []string{"REPOSITORY!", "TAG!", "DIGEST!", "IMAGE ID!", "SIZE", "PUSHED"}}
	if wide {
		t.titles = append(t.titles, "BY", "PLATFORMS")
	}
	for _, i := range all {
		d, id := short12(i.Digest), nothing
		if i.ImageID != "" {
			id = short12(i.ImageID)
		}
		if wide {
			d = i.Digest.String()
		}
		row := []string{i.Repository, cmp.Or(i.Tag, "<none>"), d, id, bytesText(i.Size), since(&i.Pushed, now)}
		if wide {
			row = append(row, cmp.Or(i.By, nothing), cmp.Or(strings.Join(i.Platforms, ","), nothing))
		}
		t.row(row...)
	}
	return t
}

func imageRemoveCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:     "rm NAME:TAG|NAME@DIGEST…",
		Aliases: []string{"remove"},
		Short:   "Remove images from the hub",
		Long: `Removes tags from the hub, and images that have no other tag then; by a digest, an image with all of its tags. Nodes that have
the image keep it. What nothing needs any more is gone from the hub's disk after an hour.`,
		Example: `  whimbrel image rm example/anomaly:1`,
		Args:    arguments(1, -1, "NAME:TAG or NAME@DIGEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := conn.resolve()
			if err != nil {
				return err
			}
			refs := make([]oci.Reference, len(args))
			for n, arg := range args {
				ref, err := oci.ParseReference(arg)
				if err != nil {
					return Usagef("%w", err)
				}
				if ref.Digest == "" && !strings.HasSuffix(arg, ":"+ref.Tag) {
					return Usagef("say which tag: %s:%s", arg, ref.Tag)
				}
				if ref.Host == hostOf(target.Server) {
					ref.Host = ""
				}
				refs[n] = ref
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				for _, ref := range refs {
					if err := removeImage(ctx, h, ref); err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s removed\n", ref)
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}

// removeImage removes a tag, and the image when that was its last one.
func removeImage(ctx context.Context, h hub, ref oci.Reference) error {
	if ref.Digest != "" {
		return h.DeleteImage(ctx, ref.Name(), ref.Digest.String())
	}
	all, err := h.Images(ctx)
	if err != nil {
		return err
	}
	var d digest.Digest
	for _, i := range all {
		if i.Repository == ref.Name() && i.Tag == ref.Tag {
			d = i.Digest
		}
	}
	if err := h.DeleteImage(ctx, ref.Name(), ref.Tag); err != nil {
		return err
	}
	if d == "" || slices.ContainsFunc(all, func(i oci.Image) bool {
		return i.Repository == ref.Name() && i.Digest == d && i.Tag != ref.Tag && i.Tag != ""
	}) {
		return nil
	}
	if err := h.DeleteImage(ctx, ref.Name(), d.String()); models.KindOf(err) != models.KindNotFound {
		return err
	}
	return nil // somebody was quicker
}

func imagePruneCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images without a tag that no app names",
		Long: `Removes images from the hub that have no tag any more, because it was given to a newer one. What a template names by its
digest stays, also in revisions that a rollout could go back to. So does what came within the last hour.`,
		Args: arguments(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				p, err := h.PruneImages(ctx)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%d images removed, %s freed\n", p.Removed, bytesText(p.Freed))
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	return cmd
}
