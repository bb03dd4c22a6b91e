// Package fetch brings the files that a task names by URI (CommandInfo.uris)
// and packs them, archives unpacked, into one tar stream for the task's sandbox.
//
// It knows URIs and files, and nothing of containers:
//
//	files, err := f.Fetch(ctx, spec.Fetch, spec.User)
//	if errors.Is(err, provider.ErrRejected) { … } // trying again is no use
//	defer files.Close()
//
// What comes from outside is bounded in size, number and time, and nothing of
// an archive is ever placed outside the sandbox or through a link.
package fetch
