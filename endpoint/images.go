package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"

	"github.com/mesopool/mesopool/endpoint/backend"
)

// maxImages bounds the names in an account's list.
const maxImages = 1000

// imageList is what one account pulled: names to images. Every account has its
// own, also where the backend keeps the bits once: having seen an image is not
// a right of others to it.
type imageList struct {
	mu    sync.Mutex
	file  string
	names map[string]backend.Image
}

// imageLists holds the lists that were asked for.
type imageLists struct {
	accounts *Accounts
	mu       sync.Mutex
	lists    map[string]*imageList
}

func (l *imageLists) of(a *Account) (*imageList, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if list := l.lists[a.Key()]; list != nil {
		return list, nil
	}
	list := &imageList{file: filepath.Join(l.accounts.Dir(a.Login), "images.json"), names: map[string]backend.Image{}}
	text, err := os.ReadFile(list.file)
	if err == nil {
		err = json.Unmarshal(text, &list.names)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("endpoint: the list of images %s: %w", list.file, err)
	}
	l.lists[a.Key()] = list
	return list, nil
}

// change does something to the names and saves them, or leaves all as it was.
func (l *imageList) change(do func(names map[string]backend.Image) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make(map[string]backend.Image, len(l.names)+1)
	for name, i := range l.names {
		names[name] = i
	}
	if err := do(names); err != nil {
		return err
	}
	if len(names) > maxImages {
		return conflict("QuotaExceeded", "an account may have %d image names; remove some", maxImages)
	}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := writeFile(l.file, text); err != nil {
		return err
	}
	l.names = names
	return nil
}

func (l *imageList) all() map[string]backend.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names // replaced, never changed
}

// imageName gives a name its whole form: nginx is nginx:latest.
func imageName(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(ref), nil
}

// Image finds an image that the account pulled, or that the operator lets it
// use, by name, ID or beginning of an ID; else it is a 404.
func (c *Cloud) Image(ctx context.Context, a *Account, name string) (backend.Image, error) {
	list, err := c.images.of(a)
	if err != nil {
		return backend.Image{}, err
	}
	all := list.all()
	full, err := imageName(name)
	if i, there := all[full]; there && err == nil {
		return withNames(i, all), nil
	}
	if i, there := imageByID(all, name); there {
		return withNames(i, all), nil
	}
	if i, there := c.granted(ctx, a, full); there {
		return i, nil
	}
	if i, there := c.grantedByID(ctx, a, name); there {
		return i, nil
	}
	return backend.Image{}, notFound("No such image: %s", name)
}

func imageByID(all map[string]backend.Image, id string) (found backend.Image, ok bool) {
	id = strings.TrimPrefix(id, "sha256:")
	for _, i := range all {
		if len(id) >= 4 && strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), id) {
			if ok && found.ID != i.ID {
				return backend.Image{}, false // ambiguous
			}
			found, ok = i, true
		}
	}
	return found, ok
}

// withNames adds all names that the account has for an image.
func withNames(i backend.Image, all map[string]backend.Image) backend.Image {
	i.Names = nil
	for name, other := range all {
		if other.ID == i.ID {
			i.Names = append(i.Names, name)
		}
	}
	slices.Sort(i.Names)
	return i
}

func (c *Cloud) granted(ctx context.Context, a *Account, full string) (backend.Image, bool) {
	if full == "" || !slices.ContainsFunc(a.Images, func(g string) bool {
		name, err := imageName(g)
		return g == "*" || err == nil && name == full
	}) {
		return backend.Image{}, false
	}
	i, err := c.backend.Local(ctx, full)
	i.Names = []string{full}
	return i, err == nil
}

func (c *Cloud) grantedByID(ctx context.Context, a *Account, id string) (backend.Image, bool) {
	if len(a.Images) == 0 {
		return backend.Image{}, false
	}
	return imageByID(c.grants(ctx, a), id)
}

// grants are the images that the operator lets the account use.
func (c *Cloud) grants(ctx context.Context, a *Account) map[string]backend.Image {
	names := a.Images
	if slices.Contains(names, "*") {
		local, err := c.backend.AllLocal(ctx)
		if err != nil {
			c.cfg.Log.Warn("the backend does not tell its images", "error", err)
		}
		names = local
	}
	all := map[string]backend.Image{}
	for _, n := range names {
		full, err := imageName(n)
		if i, there := c.granted(ctx, a, full); there && err == nil {
			all[full] = i
		}
	}
	return all
}

// AccountImages returns all images of the account by ID.
func (c *Cloud) AccountImages(ctx context.Context, a *Account) ([]backend.Image, error) {
	list, err := c.images.of(a)
	if err != nil {
		return nil, err
	}
	all := c.grants(ctx, a)
	for name, i := range list.all() {
		all[name] = i
	}
	byID := map[string]backend.Image{}
	for _, i := range all {
		byID[i.ID] = withNames(i, all)
	}
	images := make([]backend.Image, 0, len(byID))
	for _, i := range byID {
		images = append(images, i)
	}
	slices.SortFunc(images, func(x, y backend.Image) int { return strings.Compare(x.ID, y.ID) })
	return images, nil
}

// Pull fetches an image for the account, with the account's credentials.
func (c *Cloud) Pull(ctx context.Context, a *Account, ref, auth string, progress io.Writer) error {
	full, err := imageName(ref)
	if err != nil {
		return plain(400, "(InvalidName) %s: %v", ref, err)
	}
	list, err := c.images.of(a)
	if err != nil {
		return err
	}
	i, err := c.backend.Pull(ctx, full, auth, progress)
	if err != nil {
		return err
	}
	return list.change(func(names map[string]backend.Image) error { names[full] = i; return nil })
}

// Tag gives an image of the account a further name, which is the account's alone.
func (c *Cloud) Tag(ctx context.Context, a *Account, name, to string) error {
	i, err := c.Image(ctx, a, name)
	if err != nil {
		return err
	}
	full, err := imageName(to)
	if err != nil {
		return plain(400, "(InvalidName) %s: %v", to, err)
	}
	list, err := c.images.of(a)
	if err != nil {
		return err
	}
	return list.change(func(names map[string]backend.Image) error { names[full] = i; return nil })
}

// Untag takes a name, or an image with all its names, from the account's list.
// The backend keeps the bits: others may use them.
func (c *Cloud) Untag(ctx context.Context, a *Account, name string) (untagged []string, id string, err error) {
	i, err := c.Image(ctx, a, name)
	if err != nil {
		return nil, "", err
	}
	list, err := c.images.of(a)
	if err != nil {
		return nil, "", err
	}
	full, _ := imageName(name)
	err = list.change(func(names map[string]backend.Image) error {
		_, named := names[full]
		for n, other := range names {
			if n == full || !named && other.ID == i.ID {
				delete(names, n)
				untagged = append(untagged, n)
			}
		}
		if len(untagged) == 0 {
			return conflict("ImageGranted", "the image %s is the operator's; it cannot be removed", name)
		}
		return nil
	})
	slices.Sort(untagged)
	return untagged, i.ID, err
}
