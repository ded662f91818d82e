package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/whimbrel-edge/whimbrel/models"
)

func applyCommand() *cobra.Command {
	var conn connection
	var from files
	cmd := &cobra.Command{
		Use:     "apply -f FILE|DIR|-",
		GroupID: GroupObjects,
		Short:   "Make objects be as files say",
		Long: `Makes the objects in files, or replaces those that are there.

A file holds YAML documents, JSON, or lists of objects as get -o yaml prints them. Models come before the devices that
use them, in whatever order they stand in the files. An object that is wrong does not keep the others back.`,
		Example: `  whimbrel apply -f boiler.yaml
  whimbrel get devices -o yaml | whimbrel apply -f -`,
		Args: arguments(0, 0, "-f and no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !from.given() {
				return Usagef("apply needs -f: which file?")
			}
			entries, err := from.read(cmd.InOrStdin(), &conn)
			if err != nil {
				return err
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				return eachEntry(cmd, entries, func(o models.Object) error { return applyOne(ctx, cmd, h, o) })
			})
		},
	}
	conn.addFlags(cmd)
	from.addFlags(cmd, "what to apply")
	return cmd
}

// eachEntry calls do for every entry that could be read, says what goes wrong
// and goes on. It gives up where no hub answers.
func eachEntry(cmd *cobra.Command, entries []entry, do func(models.Object) error) error {
	wrong := false
	for _, e := range entries {
		err := e.err
		if err == nil {
			if err = do(e.object); err != nil && !answered(err) {
				return err
			}
			if err != nil {
				err = fmt.Errorf("%s: %s: %w", e.from, short(models.KeyOf(e.object)), err)
			}
		}
		if err != nil {
			printError(cmd.ErrOrStderr(), err)
			wrong = true
		}
	}
	if wrong {
		return failed
	}
	return nil
}

// answered reports whether an error is a hub's answer to one request, so that
// the next one is worth trying.
func answered(err error) bool {
	var e *models.Error
	return errors.As(err, &e) && e.Kind != models.KindUnauthorized
}

// hubMakes are the kinds that nobody applies, and what to apply instead.
var hubMakes = map[string]string{"Pod": "a Deployment with the pod's spec as its template", "ControllerRevision": "the app, or use rollout undo"}

func applyOne(ctx context.Context, cmd *cobra.Command, h hub, o models.Object) error {
	key := models.KeyOf(o)
	if made := hubMakes[key.Kind]; made != "" {
		return models.Errorf(models.KindInvalid, "the hub makes these itself: apply %s", made)
	}
	before := ""
	current, err := h.Get(ctx, key)
	switch {
	case err == nil:
		before = current.Meta().ResourceVersion
	case models.KindOf(err) != models.KindNotFound:
		return err
	}
	stored, created, err := h.Apply(ctx, o)
	if err != nil {
		return err
	}
	word := "configured"
	switch {
	case created:
		word = "created"
	case stored.Meta().ResourceVersion == before:
		word = "unchanged"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", short(key), word)
	return nil
}

func deleteCommand() *cobra.Command {
	var conn connection
	var from files
	var ignore bool
	cmd := &cobra.Command{
		Use:     "delete KIND NAME… | -f FILE|DIR|-",
		GroupID: GroupObjects,
		Short:   "Delete objects",
		Example: `  whimbrel delete device boiler-1
  whimbrel delete -f boiler.yaml
  whimbrel delete token 01J9ZK3W3V4R8M2N5P6Q7S8T9V`,
		ValidArgsFunction: conn.completeObjects(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from.given() == (len(args) > 0) {
				return Usagef("delete needs either KIND NAME or -f FILE")
			}
			if from.given() {
				entries, err := from.read(cmd.InOrStdin(), &conn)
				if err != nil {
					return err
				}
				slices.Reverse(entries)
				return conn.with(cmd, func(ctx context.Context, h hub) error {
					return eachEntry(cmd, entries, func(o models.Object) error {
						return deleteOne(ctx, cmd, h, models.KeyOf(o), ignore)
					})
				})
			}
			refs, err := conn.parseRefs(args)
			if err != nil {
				return err
			}
			for _, r := range refs {
				if r.name == "" {
					return Usagef("delete needs a name: which of the %s?", r.plural())
				}
			}
			return conn.with(cmd, func(ctx context.Context, h hub) error {
				wrong := false
				for _, r := range refs {
					var err error
					if r.tokens {
						err = deleteToken(ctx, cmd, h, r.name, ignore)
					} else {
						err = deleteOne(ctx, cmd, h, r.key, ignore)
					}
					if err != nil && !answered(err) {
						return err
					}
					if err != nil {
						printError(cmd.ErrOrStderr(), err)
						wrong = true
					}
				}
				if wrong {
					return failed
				}
				return nil
			})
		},
	}
	conn.addFlags(cmd)
	from.addFlags(cmd, "what to delete")
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "not being there is no error")
	return cmd
}

func deleteOne(ctx context.Context, cmd *cobra.Command, h hub, key models.Key, ignore bool) error {
	err := h.Delete(ctx, key)
	if models.KindOf(err) == models.KindNotFound {
		if ignore {
			return nil
		}
		return notFound(key)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s deleted\n", short(key))
	return nil
}

func deleteToken(ctx context.Context, cmd *cobra.Command, h hub, id string, ignore bool) error {
	err := h.DeleteToken(ctx, id)
	if models.KindOf(err) == models.KindNotFound {
		if ignore {
			return nil
		}
		return models.Errorf(models.KindNotFound, "token/%s not found", id)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "token/%s deleted\n", id)
	return nil
}

func notFound(key models.Key) error {
	if key.Namespace == "" {
		return models.Errorf(models.KindNotFound, "%s not found", short(key))
	}
	return models.Errorf(models.KindNotFound, "%s not found in %s namespace", short(key), key.Namespace)
}

// The exit codes of diff, which are kubectl's and diff's own.
const (
	exitDiffers    = 1
	exitDiffFailed = 2
)

func diffCommand() *cobra.Command {
	var conn connection
	var from files
	cmd := &cobra.Command{
		Use:     "diff -f FILE|DIR|-",
		GroupID: GroupObjects,
		Short:   "Show what apply would change",
		Long: `Shows what apply would change, as a unified diff from what is live to what the files say.

The exit code is 0 when there is no difference, 1 when there is one, and 2 when they could not be compared.`,
		Args: arguments(0, 0, "-f and no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !from.given() {
				return Usagef("diff needs -f: which file?")
			}
			entries, err := from.read(cmd.InOrStdin(), &conn)
			if err != nil {
				return exitCode{exitDiffFailed, err}
			}
			differs := false
			err = conn.with(cmd, func(ctx context.Context, h hub) error {
				return eachEntry(cmd, entries, func(o models.Object) error {
					text, err := diffOne(ctx, h, o)
					if err == nil && len(text) > 0 {
						differs = true
						_, err = cmd.OutOrStdout().Write(text)
					}
					return err
				})
			})
			var code exitCode
			var usage usageError
			switch {
			case errors.As(err, &usage):
				return err
			case errors.As(err, &code):
				return exitCode{code: exitDiffFailed}
			case err != nil:
				return exitCode{exitDiffFailed, err}
			case differs:
				return exitCode{code: exitDiffers}
			}
			return nil
		},
	}
	conn.addFlags(cmd)
	from.addFlags(cmd, "what to compare")
	return cmd
}

func diffOne(ctx context.Context, h hub, o models.Object) ([]byte, error) {
	key := models.KeyOf(o)
	var live []byte
	current, err := h.Get(ctx, key)
	switch {
	case models.KindOf(err) == models.KindNotFound:
	case err != nil:
		return nil, err
	default:
		if live, err = userPart(current, hidden(current, o, "live")); err != nil {
			return nil, err
		}
	}
	wanted, err := userPart(o, hidden(o, current, "in the file"))
	if err != nil {
		return nil, err
	}
	text := diff.Diff("live/"+short(key), live, "file/"+short(key), wanted)
	// Its first line is a command, which nobody could run.
	if _, rest, ok := bytes.Cut(text, []byte("\n")); ok {
		text = rest
	}
	return text, nil
}

// hidden stands for the values of a Secret: a diff ends in terminals and build
// logs. Where a value differs from the other side's, what stands there does, too.
func hidden(o, other models.Object, side string) map[string]string {
	secret, ok := o.(*models.Secret)
	if !ok {
		return nil
	}
	beside, _ := other.(*models.Secret)
	out := map[string]string{}
	for k, v := range secret.Data {
		out[k] = "(hidden)"
		if beside != nil && !bytes.Equal(beside.Data[k], v) {
			out[k] = "(hidden, as it is " + side + ")"
		}
	}
	return out
}

// userPart is what a user says of an object, as YAML: what only the hub says is
// left out, and both sides of a comparison are decoded the same way. instead
// stands for the values of a Secret.
func userPart(o models.Object, instead map[string]string) ([]byte, error) {
	var b bytes.Buffer
	if err := line(&b, o); err != nil {
		return nil, err
	}
	again, err := models.DecodeObject(b.Bytes())
	if err != nil {
		return nil, err
	}
	b.Reset()
	if secret, ok := again.(*models.Secret); ok {
		shown := struct {
			*models.Secret
			Data map[string]string `json:"data"`
		}{secret, instead}
		err = line(&b, shown)
	} else {
		err = line(&b, again)
	}
	if err != nil {
		return nil, err
	}
	return toYAML(b.Bytes())
}
