package fetch

import (
	"net/url"
	"path"
	"strings"

	"github.com/mesopool/mesopool/task"
)

// plan is what is to be done with one URI.
type plan struct {
	source     string // the URI
	shown      string // for people: without password and query
	name       string // of the file in the sandbox
	executable bool
	cached     bool
	unpack     unpacker // nil: the file as it is
}

// planOf reads a URI. The name decides whether it is an archive, and what is
// executable is none (slave/fetcher: fetcher.cpp, extract, fetch).
func planOf(u task.URI) (plan, error) {
	parsed, err := url.Parse(u.Value)
	if err != nil || u.Value == "" {
		return plan{}, refuse("%q is no URI; it must be like http://host/file", u.Value)
	}
	p := plan{source: u.Value, executable: u.Executable, cached: u.Cache, shown: shown(parsed), name: u.Output}
	if why := unfetchable(parsed); why != "" {
		return p, refuse("the URI %s cannot be fetched: %s", p.shown, why)
	}
	if p.name == "" {
		p.name = path.Base(parsed.Path)
	}
	if p.name, err = inside(p.name); err != nil || p.name == "." {
		return p, refuse("the URI %s names no file, or its output_file %q is not within the sandbox; set output_file to a relative path", p.shown, u.Output)
	}
	if !u.Extract || u.Executable {
		return p, nil
	}
	if word, ok := notUnpacked(p.name); ok {
		return p, refuse("the URI %s is an archive of a kind that is not unpacked here (%s): use .tar, .tar.gz, .tar.bz2, .zip or .gz, or set extract to false", p.shown, word)
	}
	p.unpack = unpackerOf(p.name)
	return p, nil
}

// unfetchable says why a URI is not one for this agent, "" if it is.
func unfetchable(u *url.URL) string {
	switch scheme := strings.ToLower(u.Scheme); scheme {
	case "http", "https":
		if u.Host == "" {
			return "it names no host"
		}
		return ""
	case "", "file":
		return "it is a path of a host, and tasks run on no particular host; put the file on a web server or into the image"
	case "hdfs", "hftp", "s3", "s3n", "s3a", "ftp", "ftps", "gs", "docker":
		return "the scheme " + scheme + " is not supported; offer the file by http or https"
	default:
		return "the scheme " + scheme + " is unknown; use http or https"
	}
}

// shown is a URI without what may be secret.
func shown(u *url.URL) string {
	bare := *u
	bare.User, bare.RawQuery, bare.Fragment = nil, "", ""
	return bare.String()
}

// inside cleans a relative path and refuses one that leads out of the sandbox.
func inside(name string) (string, error) {
	if strings.ContainsRune(name, 0) || len(name) > 4096 {
		return "", refuse("the name %.80q is no file name", name)
	}
	clean := path.Clean(name)
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", refuse("the name %q leads out of the sandbox", name)
	}
	return clean, nil
}
