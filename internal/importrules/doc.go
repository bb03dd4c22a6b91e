// Package importrules holds the test that keeps the project's shape: who may
// import whom, see docs/architecture.md.
package importrules
