// Package api is the agent's HTTP surface: what it runs (/state, /containers),
// what tasks wrote (/logs), and commands in them (/exec). It reads the runner's
// roster and the provider's optional powers, and changes nothing by itself.
package api
