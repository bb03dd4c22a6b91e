package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
)

// Create is part of Backend.
func (e *Engine) Create(ctx context.Context, s *Spec) error {
	if _, err := e.Network(ctx, s.Account); err != nil {
		return err
	}
	config, host, net, err := e.request(s)
	if err != nil {
		return err
	}
	name := e.containerName(s, s.Name)
	made, err := e.cli.ContainerCreate(ctx, config, host, net, nil, name)
	switch {
	case errdefs.IsConflict(err):
		return ErrNameTaken
	case err != nil:
		e.undo(ctx, name, s.ID)
		return errors.New(words(err))
	}
	e.keep(s, made.ID)
	return e.refresh(ctx, s.ID)
}

// undo removes what a failed create may have left: its answer may be what was
// lost. Only a container with this very ID is touched.
func (e *Engine) undo(ctx context.Context, name, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	in, err := e.cli.ContainerInspect(ctx, name)
	if err != nil || in.Config == nil || in.Config.Labels[labelID] != id {
		return
	}
	if err := e.cli.ContainerRemove(ctx, in.ID, container.RemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		e.log.Warn("a container that failed to be made is left", "name", name, "error", err)
	}
}

// words are the engine's own.
func words(err error) string { return strings.TrimPrefix(err.Error(), "Error response from daemon: ") }

// request says what the engine is to make: what a tenant may decide, and
// nothing that reaches beyond the container and its account's network.
func (e *Engine) request(s *Spec) (*container.Config, *container.HostConfig, *network.NetworkingConfig, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, nil, nil, err
	}
	config := &container.Config{
		Image: s.Image, Cmd: s.Cmd, Entrypoint: s.Entrypoint, Env: s.Env, User: s.User, WorkingDir: s.WorkDir, Hostname: s.Hostname,
		Domainname: s.Domain, Tty: s.TTY, OpenStdin: s.OpenStdin, StdinOnce: s.StdinOnce, AttachStdin: s.OpenStdin, AttachStdout: true,
		AttachStderr: true, Labels: map[string]string{},
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // Triton has none
	}
	for k := range s.Labels {
		config.Labels[k] = "" // of the image: others on the engine go by labels
	}
	config.Labels[labelEndpoint], config.Labels[labelID], config.Labels[labelSpec] = e.name, s.ID, string(text)
	if len(s.Volumes) > 0 {
		config.Volumes = map[string]struct{}{}
		for _, v := range s.Volumes {
			config.Volumes[v] = struct{}{}
		}
	}
	host := e.hostConfig(s)
	for _, v := range s.VolumesFrom {
		b, err := e.find(v.ID)
		if err != nil {
			return nil, nil, nil, err
		}
		mode := ":rw"
		if v.ReadOnly {
			mode = ":ro"
		}
		host.VolumesFrom = append(host.VolumesFrom, b.engine+mode)
	}
	join := &network.EndpointSettings{Aliases: s.NetAliases}
	for _, l := range s.Links {
		b, err := e.find(l.ID)
		if err != nil {
			return nil, nil, nil, err
		}
		join.Links = append(join.Links, b.engine[:12]+":"+l.Alias) // the name that the engine's resolver has for it
	}
	return config, host, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{e.networkName(s.Account): join}}, nil
}

// hostConfig takes limits from the package.
func (e *Engine) hostConfig(s *Spec) *container.HostConfig {
	pids := int64(maxPids)
	h := &container.HostConfig{
		NetworkMode: container.NetworkMode(e.networkName(s.Account)), DNS: s.DNS, DNSSearch: s.DNSSearch, ExtraHosts: s.ExtraHosts,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart.Name), MaximumRetryCount: s.Restart.Max},
		LogConfig:     container.LogConfig{Type: s.LogDriver, Config: s.LogOptions},
		Resources: container.Resources{
			Memory: int64(s.MemoryMiB) << 20, MemorySwap: int64(s.MemoryMiB) << 20, CPUShares: int64(max(s.CPUShares, 2)), PidsLimit: &pids,
			NanoCPUs: min(int64(s.CPUCap)*1e7, int64(e.cpus)*1e9),
		},
	}
	if s.LogDriver == "json-file" { // sdc-docker's bound, whatever the tenant says
		h.LogConfig.Config = map[string]string{"max-size": "50m", "max-file": "1"}
	}
	return h
}

// call does something with an engine's container and tells its state after it.
func (e *Engine) call(ctx context.Context, id string, do func(b *engineBox) error) error {
	b, err := e.find(id)
	if err != nil {
		return err
	}
	err = do(b)
	if told := e.refresh(ctx, id); err == nil {
		err = told
	}
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("container %.12s: %w", id, ErrNotFound)
	}
	if err != nil && ctx.Err() == nil {
		return errors.New(words(err))
	}
	return err
}

// Start is part of Backend.
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.call(ctx, id, func(b *engineBox) error {
		err := e.cli.ContainerStart(ctx, b.engine, container.StartOptions{})
		if errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "No such container") {
			return errors.New(words(err)) // of the program
		}
		return err
	})
}

// Stop is part of Backend.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(grace.Seconds())
	return e.call(ctx, id, func(b *engineBox) error {
		return e.cli.ContainerStop(ctx, b.engine, container.StopOptions{Timeout: &seconds})
	})
}

// Kill is part of Backend. An engine takes a kill as a wish that the container
// stays down; Triton starts it again if its policy says so.
func (e *Engine) Kill(ctx context.Context, id string, signal int) error {
	return e.call(ctx, id, func(b *engineBox) error {
		err := e.cli.ContainerKill(ctx, b.engine, fmt.Sprint(signal))
		if errdefs.IsConflict(err) {
			return nil // it does not run
		}
		if err != nil || signal != int(syscall.SIGKILL) {
			return err
		}
		if err := e.ended(ctx, b); err != nil || b.spec.Restart.Name == "" {
			return err
		}
		return e.cli.ContainerStart(ctx, b.engine, container.StartOptions{})
	})
}

func (e *Engine) ended(ctx context.Context, b *engineBox) error {
	ok, failed := e.cli.ContainerWait(ctx, b.engine, container.WaitConditionNotRunning)
	select {
	case <-ok:
		return nil
	case err := <-failed:
		return err
	}
}

// Rename is part of Backend: the engine's name is where the name is kept.
func (e *Engine) Rename(ctx context.Context, id, name string) error {
	b, err := e.find(id)
	if err != nil {
		return err
	}
	err = e.cli.ContainerRename(ctx, b.engine, e.containerName(b.spec, name))
	if errdefs.IsConflict(err) {
		return ErrNameTaken
	}
	return err
}

// Remove is part of Backend.
func (e *Engine) Remove(ctx context.Context, id string) error {
	b, err := e.find(id)
	if err != nil {
		return nil
	}
	for {
		err := e.cli.ContainerRemove(ctx, b.engine, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if err == nil || errdefs.IsNotFound(err) {
			e.forget(id)
			return nil
		}
		if !errdefs.IsConflict(err) { // else another removal is under way
			return errors.New(words(err))
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}
