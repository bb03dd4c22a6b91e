package marathon

import (
	"testing"
	"time"

	"github.com/mesopool/mesopool/task"
)

// What has finished is not run again; what has failed is. A new configuration is
// run anew, more instances are only the ones that are more.
func TestRunOnce(t *testing.T) {
	w := started(t, define(t, "/a", `"runOnce":true,"instances":2`))
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	w.report(w.live("/a")[0], task.Failed)
	w.run(time.Minute)
	w.wantRunning("/a", 2)
	w.report(w.live("/a")[0], task.Finished)
	w.run(time.Minute)
	w.wantRunning("/a", 1)
	w.crash()
	w.subscribe()
	w.run(time.Minute)
	w.report(w.live("/a")[0], task.Finished)
	w.run(time.Hour)
	w.wantRunning("/a", 0)
	if v, _ := w.core.App(w.now, "/a"); v.Finished != 2 || v.Waiting != "" || !w.core.suppressed {
		t.Errorf("%+v", v)
	}
	w.mustPut(define(t, "/a", `"runOnce":true,"instances":3`))
	w.run(time.Minute)
	w.wantRunning("/a", 1)
	w.mustPut(define(t, "/a", `"runOnce":true,"instances":3,"labels":{"a":"b"}`))
	w.run(time.Minute)
	w.wantRunning("/a", 3)
	w.report(w.live("/a")[0], task.Finished)
	w.run(time.Minute)
	w.mustPut(define(t, "/a", `"instances":3,"labels":{"a":"b"}`))
	w.run(time.Minute)
	w.wantRunning("/a", 3)
}
