// Package api is Marathon's REST surface: it reads requests, hands wishes to
// the runner, and shows what the core knows, in Marathon's JSON, with its
// status codes and error bodies.
package api
