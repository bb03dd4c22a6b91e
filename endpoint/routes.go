package endpoint

import (
	"regexp"
	"strings"
)

// routed is where a request goes.
type routed struct {
	method string
	path   *regexp.Regexp
	do     func(*call) error
	open   bool // without a certificate
	large  bool // its body is a stream
}

// maxBody bounds bodies that are held in memory.
const maxBody = 4 << 20

// maxStream bounds bodies that are passed on.
const maxStream = 1 << 40

func (r *routed) limit() int64 {
	if r.large {
		return maxStream
	}
	return maxBody
}

// routes are all that sdc-docker has (lib/endpoints/*.js). In a pattern, :x is
// one part of the path and *x is the rest that fits.
var routes = build()

func build() []routed {
	var all []routed
	add := func(method, pattern string, do func(*call) error, mark ...string) {
		form := regexp.QuoteMeta(pattern)
		form = regexp.MustCompile(`\\\*[a-z]+`).ReplaceAllString(form, `(.+)`)
		form = regexp.MustCompile(`:[a-z]+`).ReplaceAllString(form, `([^/]+)`)
		r := routed{method: method, path: regexp.MustCompile("^" + form + "$"), do: do}
		for _, m := range mark {
			r.open, r.large = r.open || m == "open", r.large || m == "large"
		}
		all = append(all, r)
	}
	systemRoutes(add)
	containerRoutes(add)
	imageRoutes(add)
	return all
}

type adder func(method, pattern string, do func(*call) error, mark ...string)

func refusal(what string) func(*call) error {
	return func(*call) error { return notImplemented(what) }
}

func systemRoutes(add adder) {
	add("GET", "/_ping", (*call).ping, "open")
	add("GET", "/ca.pem", (*call).caPEM, "open")
	add("GET", "/events", refusal("events"), "open")
	add("GET", "/version", (*call).version)
	add("GET", "/info", (*call).info)
	add("POST", "/auth", (*call).auth)
	add("POST", "/build", refusal("build"))
	add("POST", "/commit", refusal("commit"))
	add("GET", "/networks", (*call).networkList)
	add("POST", "/networks/create", refusal("network create"))
	add("POST", "/networks/prune", refusal("network prune"))
	add("GET", "/networks/:id", (*call).networkInspect)
	add("DELETE", "/networks/:id", refusal("network delete"))
	add("POST", "/networks/:id/connect", refusal("network connect"))
	add("POST", "/networks/:id/disconnect", refusal("network disconnect"))
	for _, v := range []string{"GET /volumes", "POST /volumes/create", "GET /volumes/:name", "DELETE /volumes/:name"} {
		method, path, _ := strings.Cut(v, " ")
		add(method, path, refusal("volumes"))
	}
}

func containerRoutes(add adder) {
	add("GET", "/containers/json", (*call).containerList)
	add("POST", "/containers/create", (*call).containerCreate)
	add("GET", "/containers/:id/json", (*call).containerInspect)
	add("GET", "/containers/:id/top", (*call).containerTop)
	add("GET", "/containers/:id/logs", (*call).containerLogs)
	add("GET", "/containers/:id/stats", (*call).containerStats)
	add("POST", "/containers/:id/start", (*call).containerStart)
	add("POST", "/containers/:id/stop", (*call).containerStop)
	add("POST", "/containers/:id/restart", (*call).containerRestart)
	add("POST", "/containers/:id/kill", (*call).containerKill)
	add("POST", "/containers/:id/attach", (*call).containerAttach)
	add("POST", "/containers/:id/wait", (*call).containerWait)
	add("POST", "/containers/:id/rename", (*call).containerRename)
	add("POST", "/containers/:id/resize", (*call).containerResize)
	add("POST", "/containers/:id/exec", (*call).execCreate)
	add("POST", "/containers/:id/copy", (*call).containerCopy)
	add("HEAD", "/containers/:id/archive", (*call).archiveStat)
	add("GET", "/containers/:id/archive", (*call).archiveGet)
	add("PUT", "/containers/:id/archive", (*call).archivePut, "large")
	add("GET", "/containers/:id/changes", refusal("changes"))
	add("GET", "/containers/:id/export", refusal("export"))
	add("POST", "/containers/:id/pause", refusal("pause"))
	add("POST", "/containers/:id/unpause", refusal("unpause"))
	add("DELETE", "/containers/:id", (*call).containerDelete)
	add("POST", "/exec/:id/start", (*call).execStart)
	add("POST", "/exec/:id/resize", (*call).execResize)
	add("GET", "/exec/:id/json", (*call).execInspect)
}

func imageRoutes(add adder) {
	add("GET", "/images/json", (*call).imageList)
	add("POST", "/images/create", (*call).imagePull)
	add("GET", "/images/search", refusal("search"))
	add("GET", "/images/get", refusal("image get"))
	add("POST", "/images/load", refusal("image load"), "large")
	add("GET", "/images/*name/json", (*call).imageInspect)
	add("GET", "/images/*name/history", (*call).imageHistory)
	add("GET", "/images/*name/changes", refusal("image changes"))
	add("GET", "/images/*name/get", refusal("image get"))
	add("POST", "/images/*name/push", refusal("push"))
	add("POST", "/images/*name/tag", (*call).imageTag)
	add("DELETE", "/images/*name", (*call).imageDelete)
}

// route finds where a request goes; else allow names the methods that the path
// has, "" when it has none.
func route(method, path string) (found *routed, args []string, allow string) {
	var methods []string
	for i := range routes {
		m := routes[i].path.FindStringSubmatch(path)
		if m == nil {
			continue
		}
		if routes[i].method == method {
			return &routes[i], m[1:], ""
		}
		methods = append(methods, routes[i].method)
	}
	return nil, nil, strings.Join(methods, ", ")
}
