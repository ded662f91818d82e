package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/whimbrel-edge/whimbrel/edgeruntime/engine/docker"
	"github.com/whimbrel-edge/whimbrel/internal/dockertest"
)

// appWorld is a world whose edge runs apps, on a container engine of its own.
type appWorld struct {
	*world
	host   string // of the engine
	docker *docker.Docker
	daemon *dockertest.Engine
}

// newAppWorld starts an engine, which has appImage if that is asked for, and a world.
func newAppWorld(ctx context.Context, image bool) (a *appWorld, err error) {
	a = &appWorld{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.daemon, err = dockertest.Open(); err != nil {
		return nil, err
	}
	a.host = a.daemon.Host()
	if a.docker, err = docker.New(a.host); err != nil {
		return nil, err
	}
	if image {
		archive, err := dockertest.AppArchive(appImage, "")
		if err != nil {
			return nil, err
		}
		if _, err := a.docker.Load(ctx, bytes.NewReader(archive)); err != nil {
			return nil, fmt.Errorf("load %s: %w", appImage, err)
		}
	}
	// The edge finds it there, and so does the docker command.
	if err := os.Setenv("DOCKER_HOST", a.host); err != nil {
		return nil, err
	}
	a.world, err = newWorld(ctx)
	return a, err
}

// close ends the world before its engine.
func (a *appWorld) close() (err error) {
	err = os.Unsetenv("DOCKER_HOST")
	if a.world != nil {
		err = errors.Join(err, a.world.close())
	}
	if a.docker != nil {
		err = errors.Join(err, a.docker.Close())
	}
	if a.daemon != nil {
		err = errors.Join(err, a.daemon.Close())
	}
	return err
}
