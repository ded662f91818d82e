// Package pb holds the generated messages of the link. edgelink.proto is their
// source; `go generate` makes them anew with protoc, protoc-gen-go v1.36.12 and
// protoc-gen-go-vtproto v0.6.0.
package pb

//go:generate protoc -I . --go_out=../../.. --go_opt=module=github.com/whimbrel-edge/whimbrel --go-vtproto_out=../../.. --go-vtproto_opt=module=github.com/whimbrel-edge/whimbrel,features=marshal+unmarshal+size edgelink.proto
