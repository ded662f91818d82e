package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/whimbrel-edge/whimbrel/models"
)

// kindInfo returns what is known of a kind.
func kindInfo(kind string) (models.KindInfo, error) {
	info, ok := models.KindByName(kind)
	if !ok {
		return info, models.Errorf(models.KindInvalid, "kind %.40q is not known", kind)
	}
	return info, nil
}

// request starts a request about one object.
func request(method string, key models.Key) (Request, models.KindInfo, error) {
	info, err := kindInfo(key.Kind)
	if err != nil {
		return Request{}, info, err
	}
	if key.Name == "" {
		return Request{}, info, models.Invalid("/metadata/name", "is required")
	}
	r := Request{Method: method, Path: Prefix + "/" + info.Plural + "/" + url.PathEscape(key.Name), Query: url.Values{}, Header: http.Header{}}
	if info.Namespaced {
		set(r.Query, "namespace", key.Namespace)
	}
	return r, info, nil
}

// Get returns an object with its status.
func (c *Client) Get(ctx context.Context, key models.Key) (models.Object, error) {
	r, info, err := request(http.MethodGet, key)
	if err != nil {
		return nil, err
	}
	o := info.New()
	if _, err := c.call(ctx, r, nil, o); err != nil {
		return nil, err
	}
	return o, nil
}

// List returns the objects of a kind.
func (c *Client) List(ctx context.Context, kind string, o ListOptions) (models.List, error) {
	info, err := kindInfo(kind)
	if err != nil {
		return models.List{}, err
	}
	var answer struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
			Continue        string `json:"continue"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	if _, err := c.call(ctx, Request{Method: http.MethodGet, Path: Prefix + "/" + info.Plural, Query: o.query()}, nil, &answer); err != nil {
		return models.List{}, err
	}
	list := models.List{Items: make([]models.Object, 0, len(answer.Items)), ResourceVersion: answer.Metadata.ResourceVersion, Continue: answer.Metadata.Continue}
	for _, text := range answer.Items {
		o := info.New()
		if err := json.Unmarshal(text, o); err != nil {
			return models.List{}, err
		}
		list.Items = append(list.Items, o)
	}
	return list, nil
}

// Create makes a new object. When there is one already the error is KindConflict.
func (c *Client) Create(ctx context.Context, o models.Object, opts ...Option) (models.Object, error) {
	r, info, err := request(http.MethodPost, models.KeyOf(o))
	if err != nil {
		return nil, err
	}
	r.Path = Prefix + "/" + info.Plural
	stored := info.New()
	if _, err := c.call(ctx, r, o, stored, opts...); err != nil {
		return nil, err
	}
	return stored, nil
}

// Apply creates the object or replaces the one there is.
func (c *Client) Apply(ctx context.Context, o models.Object, opts ...Option) (stored models.Object, created bool, err error) {
	r, info, err := request(http.MethodPut, models.KeyOf(o))
	if err != nil {
		return nil, false, err
	}
	stored = info.New()
	resp, err := c.call(ctx, r, o, stored, opts...)
	if err != nil {
		return nil, false, err
	}
	return stored, resp.StatusCode == http.StatusCreated, nil
}

// Patch changes an object by a merge patch, JSON or YAML.
func (c *Client) Patch(ctx context.Context, key models.Key, patch []byte, opts ...Option) (models.Object, error) {
	r, info, err := request(http.MethodPatch, key)
	if err != nil {
		return nil, err
	}
	r.Body = patch
	r.Header.Set("Content-Type", "application/merge-patch+json")
	o := info.New()
	if _, err := c.call(ctx, r, nil, o, opts...); err != nil {
		return nil, err
	}
	return o, nil
}

// Delete deletes an object and returns it as it was.
func (c *Client) Delete(ctx context.Context, key models.Key, opts ...Option) (models.Object, error) {
	r, info, err := request(http.MethodDelete, key)
	if err != nil {
		return nil, err
	}
	o := info.New()
	if _, err := c.call(ctx, r, nil, o, opts...); err != nil {
		return nil, err
	}
	return o, nil
}
