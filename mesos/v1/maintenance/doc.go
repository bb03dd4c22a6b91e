// Package maintenancev1 is the generated vocabulary of planned unavailability.
package maintenancev1
