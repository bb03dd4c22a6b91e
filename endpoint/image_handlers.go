package endpoint

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/mesopool/mesopool/endpoint/backend"
)

func (c *call) imageList() error {
	all, err := c.s.cloud.AccountImages(c.r.Context(), c.acct)
	if err != nil {
		return err
	}
	name, err := imageName(c.r.URL.Query().Get("filter"))
	out := []any{}
	for _, i := range all {
		if err == nil && !hasName(i, name) {
			continue
		}
		out = append(out, map[string]any{
			"Id": i.ID, "ParentId": "", "RepoTags": i.Names, "RepoDigests": []string{}, "Created": i.Created.Unix(), "Size": i.Size,
			"VirtualSize": i.Size, "Labels": i.Labels,
		})
	}
	return c.give(out)
}

func hasName(i backend.Image, name string) bool {
	for _, n := range i.Names {
		if n == name {
			return true
		}
	}
	return false
}

// progress writes a pull's JSON objects at once.
type progress struct {
	c     *call
	began bool
}

func (p *progress) Write(b []byte) (int, error) {
	if !p.began {
		p.began = true
		p.c.w.Header().Set("Content-Type", "application/json")
		p.c.w.WriteHeader(http.StatusOK)
	}
	n, err := p.c.w.Write(b)
	http.NewResponseController(p.c.w).Flush()
	return n, err
}

// imagePull streams JSON objects, 200 also when it fails: then the last object
// has the error (sdc-docker: lib/endpoints/images.js).
func (c *call) imagePull() error {
	q := c.r.URL.Query()
	name, tag := q.Get("fromImage"), q.Get("tag")
	switch {
	case q.Get("fromSrc") != "":
		return notImplemented("import")
	case name == "":
		return validation(`"fromImage" must be a string`)
	case tag != "" && strings.Contains(tag, ":"):
		name += "@" + tag // a digest
	case tag != "":
		name += ":" + tag
	case !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":"):
		return notImplemented("pulling all tags")
	}
	if c.acct.Unapproved {
		return &Error{http.StatusForbidden, "NotAuthorized", c.acct.Login + " does not have permission to pull or provision"}
	}
	out := &progress{c: c}
	err := c.s.cloud.Pull(c.r.Context(), c.acct, name, c.r.Header.Get("X-Registry-Auth"), out)
	var e *Error
	if errors.As(err, &e) && !out.began {
		return err
	}
	if err != nil {
		text, _ := json.Marshal(map[string]any{"error": err.Error(), "errorDetail": map[string]string{"message": err.Error()}})
		out.Write(append(text, '\n'))
	}
	return nil
}

func (c *call) imageInspect() error {
	i, err := c.s.cloud.Image(c.r.Context(), c.acct, c.args[0])
	if err != nil {
		return err
	}
	return c.give(map[string]any{
		"Id": i.ID, "RepoTags": i.Names, "RepoDigests": []string{}, "Parent": "", "Comment": "", "Created": moment(i.Created), "Container": "",
		"DockerVersion": engineVersion, "Author": "", "Architecture": "amd64", "Os": "linux", "Size": i.Size, "VirtualSize": i.Size,
		"Config": map[string]any{
			"Cmd": i.Cmd, "Entrypoint": i.Entrypoint, "Env": i.Env, "ExposedPorts": set(i.Exposed), "Volumes": set(i.Volumes), "Labels": i.Labels,
			"User": i.User, "WorkingDir": i.WorkDir,
		},
	})
}

func (c *call) imageHistory() error {
	i, err := c.s.cloud.Image(c.r.Context(), c.acct, c.args[0])
	if err != nil {
		return err
	}
	return c.give([]any{map[string]any{
		"Id": i.ID, "Created": i.Created.Unix(), "CreatedBy": strings.Join(i.Cmd, " "), "Tags": i.Names, "Size": i.Size, "Comment": "",
	}})
}

func (c *call) imageTag() error {
	q := c.r.URL.Query()
	to := q.Get("repo")
	if to == "" {
		return validation(`"repo" must be a string`)
	}
	if t := q.Get("tag"); t != "" {
		to += ":" + t
	}
	if err := c.s.cloud.Tag(c.r.Context(), c.acct, c.args[0], to); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

func (c *call) imageDelete() error {
	names, id, err := c.s.cloud.Untag(c.r.Context(), c.acct, c.args[0])
	if err != nil {
		return err
	}
	out := []map[string]string{}
	for _, n := range names {
		out = append(out, map[string]string{"Untagged": n})
	}
	return c.give(append(out, map[string]string{"Deleted": id}))
}
