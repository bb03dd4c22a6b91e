// Package docker runs containers on one Docker engine, from 20.10 (API 1.40) to
// today's, or on Podman behind its Docker socket.
//
// A launch is two calls, create and start; everything that a task would lose
// silently is refused with the reason or translated.
//
//	e, err := docker.New(docker.OptionsFromEnv(os.Getenv))
//	…
//	defer e.Close()
//	c, err := e.Launch(ctx, owner, "web-1", spec)
//
// Every container joins the cluster's own network and has an address of its
// own there, so host ports never clash and are never published, unless
// Options.PublishLoopback asks for it.
package docker
