package task

import "github.com/mesopool/mesopool/resources"

// Offer is a part of an agent that a framework may use.
type Offer struct {
	ID         string
	Agent      string
	Hostname   string
	Role       string
	Region     string
	Zone       string
	Attributes []Label             // scalars as text, sets joined by commas
	Resources  resources.Resources // allocated to Role
}
