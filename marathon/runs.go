package marathon

// Runs counts the runs of an app that runs once.
type Runs struct {
	Version  string // the configuration that they are of
	Finished int
}

// finished is how many runs of the app's configuration have come to their end;
// 0 for an app that goes on for ever.
func (a *app) finished() int {
	if !a.def.RunOnce || a.runs.Version != a.def.ConfigVersion() {
		return 0
	}
	return a.runs.Finished
}

// finishRun counts a run. One of an earlier configuration has ended as any
// instance may.
func (c *Core) finishRun(a *app, i *Instance, fx []Effect) []Effect {
	if i.Version != a.def.ConfigVersion() {
		return fx
	}
	a.runs = Runs{Version: i.Version, Finished: a.finished() + 1}
	c.changed[i.App] = true
	return append(fx, Save{Key: KeyApp + i.App, Value: a.record()})
}
