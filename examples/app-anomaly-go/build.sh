#!/bin/sh
# Makes the image example/anomaly:1 in the Docker engine (DOCKER_HOST, else the
# default one). IMAGE gives it another name, GOARCH another processor.
set -eu
cd "$(dirname "$0")"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o anomaly .
DOCKER_BUILDKIT=0 docker build -q -t "${IMAGE:-example/anomaly:1}" .
