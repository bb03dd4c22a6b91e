package endpoint

import (
	"strings"
	"testing"
	"time"
)

// TestNoRequestLooksAtAnothersContainers holds the lock of one tenant's index
// while another tenant sends every request there is: whoever looked at a
// container of the first would wait until it is let go.
func TestNoRequestLooksAtAnothersContainers(t *testing.T) {
	r := plainRig(t)
	first, second := r.newTenant("first"), r.newTenant("second")
	foreign := first.start("mine", "run", nil)
	index := r.cloud.tenantOf(first.acct.Key())
	asked := make(chan int, 1)
	index.mu.Lock()
	go func() { asked <- second.askEverything(foreign) }()
	select {
	case n := <-asked:
		index.mu.Unlock()
		if n < 6*len(routes) {
			t.Errorf("only %d requests had an answer", n)
		}
	case <-time.After(20 * time.Second):
		index.mu.Unlock()
		t.Error("a request waits for another tenant's index")
		<-asked
	}
}

// askEverything sends the request of every route for what is the tenant's own,
// belongs to another, and is nowhere; it tells how many had an answer.
func (c *client) askEverything(foreign string) (answers int) {
	own := c.create("own", body("exit", nil))
	ask := func(method, path string, body any) {
		if a := c.do(method, path, body); a.err == nil && a.status != 0 {
			answers++
		}
	}
	for _, join := range []m{{"Links": []string{"mine:other"}}, {"VolumesFrom": []string{foreign}}, {"NetworkMode": "container:" + foreign}} {
		ask("POST", "/containers/create?name=join", body("run", join))
	}
	ask("POST", "/containers/create?name=near", body("run", nil, m{"Env": []string{"affinity:container==" + foreign}}))
	ask("GET", `/containers/json?all=1&filters={"name":["mine"]}`, nil)
	ask("GET", "/containers/json?all=1&before="+foreign, nil)
	for i := range routes {
		for _, id := range []string{foreign, foreign[:12], foreign[:3], "mine", "nowhere", own[:6], own} {
			if strings.HasPrefix(own, id) && strings.Contains(routes[i].path.String(), "attach") {
				continue // waits for its start
			}
			form := strings.Trim(routes[i].path.String(), "^$")
			path := strings.NewReplacer(`([^/]+)`, id, `(.+)`, id, `\`, "").Replace(form)
			ask(routes[i].method, path+"?stream=0&path=/&name=own2", nil)
		}
	}
	return answers
}
